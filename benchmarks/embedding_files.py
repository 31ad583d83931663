"""Measures how many photographs per second ``evaluate.py`` and ``search.py index`` embed.

    pip install -e '.[benchmarks]' && python benchmarks/embedding_files.py

The photographs are JPEG files of 640 x 480 pixels. The model is EfficientNet-B0 at 224 pixels, in
float32, and embeds batches of 64. Three programs are compared: ``embed_images``, the tower alone on
crops in memory, and Hugging Face's ``AlignModel`` with a DataLoader and Pillow. PyTorch runs with
its fastest settings: ``channels_last``, and a glibc that keeps freed memory. Each case runs in its
own process. The cases take turns, and each turn is a pass over the files.
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
import serving
from peers import KEEP_MEMORY

BATCH, FILES, ROUNDS = 64, 192, 3


def own_files(folder, vocabulary, antialias, runtime="tensorflow"):
    """Embeds the files of a folder."""
    from align_keras.data.examples import open_images
    from align_keras.evaluation import embedding

    model = serving.own_model(vocabulary, antialias)
    model.use_runtime(runtime)
    files = list(open_images(folder))
    return lambda: embedding.embed_images(model.encode_images, files, model.preprocessor, BATCH)


def tower_alone(folder, vocabulary, runtime="tensorflow"):
    """Embeds the same number of crops, which are in memory."""
    import numpy as np

    model = serving.own_model(vocabulary)
    model.use_runtime(runtime)
    shape = (FILES, serving.IMAGE_SIZE, serving.IMAGE_SIZE, 3)
    crops = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    return lambda: model.encode_images(crops, batch_size=BATCH, cropped=True)


def peer_files(folder, vocabulary, workers):
    """Embeds the files of a folder with Hugging Face's model."""
    import torch

    embed = serving.peer(vocabulary, folder)["crops"]
    paths = sorted(Path(folder).glob("*.jpg"))

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            return torch.from_numpy(serving.peer_pixels(paths[index].read_bytes()))

    loader = torch.utils.data.DataLoader(
        Files(), BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: [embed(batch) for batch in loader]


CASES = {
    "tower alone": (tower_alone, {}),
    "embed_images": (own_files, {"antialias": False}),
    "embed_images, averaged": (own_files, {"antialias": True}),
    "tower alone, LiteRT": (tower_alone, {"runtime": "litert"}),
    "embed_images, LiteRT": (own_files, {"antialias": False, "runtime": "litert"}),
    "embed_images, averaged, LiteRT": (own_files, {"antialias": True, "runtime": "litert"}),
    **{f"AlignModel, {n} workers": (peer_files, {"workers": n}) for n in (0, 1, 2)},
}


def run(name, folder, vocabulary):
    """Measures one case, in its own process."""
    make, options = CASES[name]
    embed = make(folder, vocabulary, **options)
    measure.take_turns((embed() for _ in itertools.count()), FILES, seconds=1.0)


def main():
    """Measures every case and prints the table."""
    os.environ.update(KEEP_MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        what = photographs.write(Path(folder), FILES)
        captions = json.loads((Path(folder) / "captions.json").read_text())
        vocabulary = photographs.vocabulary(Path(folder), captions)
        print(f"{measure.machine()}; EfficientNet-B0 at {serving.IMAGE_SIZE}, float32\n{what}\n")
        cases = {name: {"name": name, "folder": folder, "vocabulary": vocabulary} for name in CASES}
        rounds = measure.side_by_side(__file__, cases, ROUNDS)
    speeds = {name: statistics.median(speed[name] for speed in rounds) for name in CASES}
    peer = max(speed for name, speed in speeds.items() if name.startswith("AlignModel"))
    print(f"{'':<32}{'images/s':>9}{'of the tower':>14}{'of AlignModel':>15}")
    for name, speed in speeds.items():
        print(f"{name:<32}{speed:>9.1f}{speed / speeds['tower alone']:>14.1%}{speed / peer:>15.2f}")
    for name in filter(lambda name: name.startswith("embed_images"), CASES):
        measure.ratio(f"{name}: images/s of AlignModel with a DataLoader", speeds[name] / peer, 2.0)
        tower = "tower alone, LiteRT" if "LiteRT" in name else "tower alone"
        share = speeds[name] / speeds[tower]
        measure.ratio(f"{name}: images/s of the tower alone", share, 0.85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main())
