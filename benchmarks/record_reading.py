"""Compares two ways to read records from shards: with TensorFlow alone, and with Python as before.

    python benchmarks/record_reading.py

The records have 30 KB each and lie in eight shards. They are read in the order of training, but not
decoded. Every case runs in its own process. The cases take turns of a few seconds, and the median
of each counts. After the first turn, the files are in memory (the page cache).
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
import numpy as np

RECORDS, SHARDS, IMAGE_BYTES = 8_192, 8, 30_000
BATCH = 256
ROUNDS, SECONDS = 7, 2.0


def write(folder):
    """Writes shards of records whose image is random bytes."""
    from align_keras.data import records
    from align_keras.data.shard_writer import ShardWriter

    rng = np.random.default_rng(0)
    with ShardWriter(str(Path(folder) / "s"), RECORDS // SHARDS) as writer:
        for key in range(RECORDS):
            caption = f"a photograph of something in the park, number {key}"
            image = rng.bytes(IMAGE_BYTES)
            writer.write(records.make_record(image, caption, str(key), image_id=str(key)))


def through_python(counts):
    """Reads as the former training pipeline did: with a generator and with protobuf in Python."""
    import tensorflow as tf

    from align_keras.data import pairs, records

    shards = sorted(counts)

    def turns(block):
        start, skip, count = map(int, block[1:])
        frames = records.read_records(shards[int(block[0])], count, start, skip)
        while turn := [pairs.read_pair(one) for one in itertools.islice(frames, 16)]:
            yield tuple(map(list, zip(*turn, strict=True)))

    def read_block(block):
        arguments = tf.stack([block.shard, block.start, block.skip, block.count])
        signature = (tf.TensorSpec([None], tf.string),) * 3
        dataset = tf.data.Dataset.from_generator(
            turns, args=(arguments,), output_signature=signature
        )
        return dataset.unbatch()

    return read_block


def pipeline(folder, case):
    """Makes batches with one number for each record, so that only reading takes time."""
    import tensorflow as tf

    from align_keras.data import block_reader, pairs, records, shard_order
    from align_keras.data import pipeline as training

    counts = training.shard_counts(records.find_shards(f"{folder}/*.tfrecord"))
    if case == "TFRecordDataset":
        files = tf.data.Dataset.from_tensor_slices(sorted(counts)).repeat()
        dataset = files.interleave(tf.data.TFRecordDataset, 16, 16, tf.data.AUTOTUNE)
    else:
        read = through_python(counts) if case == "python" else block_reader.block_reader(counts)
        share = shard_order.Share(sum(counts.values()), 0, 1)
        epoch = shard_order.epoch_of(counts, read, 0, share)
        dataset = tf.data.Dataset.range(1 << 40).flat_map(epoch)
    dataset = dataset.batch(BATCH)
    if case == "native, pairs":
        dataset = dataset.map(
            lambda records, _: pairs.parse_pairs(records), num_parallel_calls=tf.data.AUTOTUNE
        )
    dataset = dataset.map(lambda *parts: tf.strings.length(tf.nest.flatten(parts)[0]))
    return iter(dataset.prefetch(2))


CASES = {
    "TFRecordDataset, files in turn (ceiling)": "TFRecordDataset",
    "records in the order of training": "native",
    "pairs: image, caption, image id": "native, pairs",
    "pairs through Python, as before": "python",
}


def run(folder, case):
    """Measures one case, in its own process."""
    measure.take_turns(pipeline(folder, case), BATCH, SECONDS)


def main():
    """Measures every case and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        print(f"{measure.machine()}\n{RECORDS:,} records of {IMAGE_BYTES:,} bytes\n")
        cases = {name: {"folder": folder, "case": case} for name, case in CASES.items()}
        rounds = measure.side_by_side(__file__, cases, ROUNDS)
    speeds = {name: statistics.median(speed[name] for speed in rounds) for name in CASES}
    before = list(speeds.values())[-1]
    print(f"{'':<44}{'records/s':>10}{'times':>8}")
    for name, speed in speeds.items():
        print(f"{name:<44}{speed:>10,.0f}{speed / before:>8.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main())
