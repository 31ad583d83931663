"""Compares the training pipeline with plain TensorFlow and PyTorch, in pairs per second.

    python benchmarks/input_pipeline.py

Photographs of 640 x 480 pixels become crops of 289 x 289 pixels, and captions become 64 word
pieces, in batches of 64. Every case runs in its own process. The cases take turns of a few seconds,
and the median of each counts. The upper limit ("ceiling") is TensorFlow when it only decodes the
same JPEG data in memory and resizes them to 346 x 346 pixels, in a ``tf.data`` map with one thread
per core. It does not read files, crop, flip, scale, batch or tokenize. This needs PyTorch and
transformers: pip install 'align-keras[benchmarks]'.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure
import photographs

IMAGE_SIZE, RESIZE_SIZE, SEQUENCE = 289, 346, 64
BATCH, PHOTOGRAPHS = 64, 1_024
# The buffer is small compared with the data, as in a long run. With a larger buffer, the whole
# epoch would be read before the first batch.
SHUFFLE_BUFFER = 256
ROUNDS, SECONDS = 7, 1.5
CORES = len(os.sched_getaffinity(0))


def images_only(directory, case):
    """Decodes images in memory with TensorFlow's ops and returns one number for each image."""
    import tensorflow as tf

    from align_keras.preprocessing import images

    def plain(_, jpg):
        return tf.image.resize(tf.io.decode_jpeg(jpg, channels=3), [RESIZE_SIZE] * 2)

    def windowed(position, jpg):
        offset = tf.random.stateless_uniform([2], [0, position], 0, RESIZE_SIZE - IMAGE_SIZE + 1)
        offset = tf.cast(offset, tf.int32)
        return images.decode_resized_crop(jpg, offset, IMAGE_SIZE, RESIZE_SIZE, antialias=False)

    decode = {"plain": plain, "windowed": windowed}[case]
    files = [path.read_bytes() for path in sorted(directory.glob("*.jpg"))]
    dataset = tf.data.Dataset.from_tensor_slices(files).repeat().enumerate()
    # Only one number of each image is kept, so that making a batch costs almost nothing.
    dataset = dataset.map(lambda *item: decode(*item)[0, 0, 0], num_parallel_calls=CORES)
    return iter(dataset.batch(BATCH))


def pipeline(directory, vocabulary, antialias):
    """Makes the training pipeline, from shards to batches."""
    from align_keras import AlignPreprocessor
    from align_keras.data import pipeline, records

    preprocessor = AlignPreprocessor(
        vocabulary, IMAGE_SIZE, RESIZE_SIZE, SEQUENCE, antialias=antialias
    )
    counts = pipeline.shard_counts(records.find_shards(f"{directory}/train-*.tfrecord"))
    return iter(
        pipeline.training_dataset(counts, preprocessor, BATCH, shuffle_buffer=SHUFFLE_BUFFER)
    )


def pytorch(directory, vocabulary, workers):
    """Does the same work with Pillow, the Hugging Face tokenizer and a DataLoader."""
    import torch_loader

    pairs = torch_loader.Pairs(directory, IMAGE_SIZE, RESIZE_SIZE)
    cutter = torch_loader.tokenizer(vocabulary)
    return torch_loader.endless_batches(pairs, cutter, BATCH, workers, SEQUENCE)


def captions_only(directory, vocabulary, library):
    """Turns batches of captions into padded word pieces."""
    captions = json.loads((directory / "captions.json").read_text())
    batches = [captions[start : start + BATCH] for start in range(0, len(captions), BATCH)]
    if library == "transformers":
        import torch_loader

        cutter = torch_loader.tokenizer(vocabulary)
        return (torch_loader.tokenize(cutter, b, SEQUENCE) for b in itertools.cycle(batches))
    import tensorflow as tf

    from align_keras import AlignPreprocessor

    preprocessor = AlignPreprocessor(vocabulary, sequence_length=SEQUENCE)
    dataset = tf.data.Dataset.from_tensor_slices(captions).batch(BATCH).repeat()
    return iter(dataset.map(preprocessor.tokenize, num_parallel_calls=CORES).prefetch(CORES))


CASES = {
    "decode + resize, TensorFlow's own ops (ceiling)": (images_only, {"case": "plain"}),
    "decode + resize of the crop alone": (images_only, {"case": "windowed"}),
    "training_dataset": (pipeline, {"antialias": False}),
    "training_dataset, antialias": (pipeline, {"antialias": True}),
    "PyTorch, 0 workers": (pytorch, {"workers": 0}),
    "PyTorch, 1 worker": (pytorch, {"workers": 1}),
    "PyTorch, 2 workers": (pytorch, {"workers": 2}),
    "captions alone, tokenize": (captions_only, {"library": "align_keras"}),
    "captions alone, BertTokenizerFast": (captions_only, {"library": "transformers"}),
}
CEILING = next(iter(CASES))


def run(name, directory, vocabulary):
    """Measures one case, in its own process."""
    make, options = CASES[name]
    if make is not images_only:
        options = {"vocabulary": vocabulary, **options}
    measure.take_turns(make(Path(directory), **options), BATCH, SECONDS)


def main():
    """Measures every case and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        what = photographs.write(directory, PHOTOGRAPHS)
        captions = json.loads((directory / "captions.json").read_text())
        vocabulary = photographs.vocabulary(directory, captions)
        print(f"{measure.machine()}\n{what}; medians of {ROUNDS} turns of {SECONDS} s\n")
        cases = {
            name: {"name": name, "directory": folder, "vocabulary": vocabulary} for name in CASES
        }
        rounds = measure.side_by_side(__file__, cases, ROUNDS)
    speeds = {name: statistics.median(speed[name] for speed in rounds) for name in CASES}
    peer = max(speed for name, speed in speeds.items() if name.startswith("PyTorch"))
    print(f"{'':<50}{'pairs/s':>9}{'of ceiling':>12}{'of PyTorch':>12}")
    for name, (make, _) in CASES.items():
        line = f"{name:<50}{speeds[name]:>9,.0f}"
        if make is not captions_only:
            line += f"{speeds[name] / speeds[CEILING]:>12.1%}{speeds[name] / peer:>12.2f}"
        print(line)
    for name, aim in (("training_dataset", None), ("training_dataset, antialias", 0.7)):
        measure.ratio(f"{name}: pairs/s of the ceiling", speeds[name] / speeds[CEILING], aim)
        measure.ratio(f"{name}: pairs/s of PyTorch", speeds[name] / peer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main())
