"""Measures how exported towers (ONNX, LiteRT, smaller weights) change retrieval.

    pip install -e '.[onnx,litert]'
    python benchmarks/exported_towers.py --model=PRESET --data=DATA/fashion/pairs.jsonl

Exports the towers in every format and embeds image-text pairs with each runtime. Prints the
recalls, the largest difference between these embeddings and those of the model, the sizes, and the
speed of the towers.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure
import numpy as np

from align_keras import AlignDualEncoder, paths
from align_keras.data import examples
from align_keras.evaluation import embedding, retrieval
from align_keras.preprocessing import raw_inputs

BATCH_SIZE = 32
FORMS = {
    "ONNX": {"format": "onnx"},
    "LiteRT": {"format": "litert"},
    "LiteRT, float16": {"format": "litert", "quantize": "float16"},
    "LiteRT, int8": {"format": "litert", "quantize": "int8"},
}


class Towers:
    """Embeds with two functions on batches of model inputs and measures their time only."""

    def __init__(self, preprocessor, image_tower, text_tower):
        self.preprocessor = preprocessor
        self.image_tower, self.text_tower = image_tower, text_tower
        self.seconds = {}

    def encode_images(self, images, batch_size=BATCH_SIZE):
        """Embeds images, as the model's ``encode_images`` does."""
        batches = raw_inputs.image_batches(images, self.preprocessor, BATCH_SIZE)
        return self._encode("images", self.image_tower, ({"images": batch} for batch in batches))

    def encode_texts(self, texts, batch_size=BATCH_SIZE):
        """Embeds texts, as the model's ``encode_texts`` does."""
        batches = raw_inputs.caption_batches(texts, self.preprocessor, BATCH_SIZE)
        return self._encode("texts", self.text_tower, batches)

    def _encode(self, kind, tower, batches):
        embeddings = []
        for batch in batches:
            batch = {name: np.asarray(value) for name, value in batch.items()}
            start = time.perf_counter()
            embeddings.append(np.asarray(tower(batch)))
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - start
        return np.concatenate(embeddings)


def onnx_tower(path):
    """Returns a function that embeds a batch with ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


def litert_tower(path):
    """Returns a function that embeds a batch with LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=path, num_threads=os.cpu_count()).get_signature_runner()
    names = runner.get_input_details()
    return lambda batch: next(iter(runner(**{name: batch[name] for name in names}).values()))


def row(name, pairs, own, seconds, sizes):
    """Returns a line of the table."""
    metrics, _ = retrieval.full_metrics(pairs.images, pairs.texts, pairs.image_of_text)
    recalls = "".join(
        f"{metrics[f'{way}_recall_at_{k}']:>8.1%}" for way in ("i2t", "t2i") for k in (1, 10)
    )
    off = max(np.abs(pairs.images - own.images).max(), np.abs(pairs.texts - own.texts).max())
    speeds = [len(pairs.images) / seconds["images"], len(pairs.texts) / seconds["texts"]]
    return (
        f"{name:<18}{sizes[0]:>8.2f}{sizes[1]:>8.2f}{recalls}{metrics['mean_recall']:>8.2%}"
        f"{off:>10.1e}{speeds[0]:>10,.0f}{speeds[1]:>9,.0f}"
    )


def main(preset, data, split):
    """Exports the towers, embeds the pairs and prints the table."""
    model = AlignDualEncoder.from_preset(preset)
    data = examples.open_examples(data, split)
    backbone = model.backbone
    own_towers = Towers(
        model.preprocessor,
        lambda batch: model.encode_images(batch["images"]),
        lambda batch: model.encode_texts(batch),
    )
    embedding.embed_pairs(own_towers, data)  # this first pass traces the functions
    own_towers.seconds.clear()
    own = embedding.embed_pairs(own_towers, data)
    weights = [
        sum(4 * int(np.prod(weight.shape)) for weight in part.weights) / 2**20
        for part in (backbone.image_encoder, backbone.text_encoder)
    ]
    print(
        f"{measure.machine()}; {preset}, {len(own.images):,} images, {len(own.texts):,} captions\n"
    )
    print(
        f"{'':<18}{'image':>8}{'text':>8}{'i2t R@1':>8}{'R@10':>8}{'t2i R@1':>8}{'R@10':>8}"
        f"{'mean':>8}{'off by':>10}{'images/s':>10}{'texts/s':>9}\n{'':<18}{'MiB':>8}{'MiB':>8}"
    )
    print(row("model in memory", own, own, own_towers.seconds, weights), flush=True)
    for name, options in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            model.export(folder, **options)
            load = onnx_tower if options["format"] == "onnx" else litert_tower
            paths = [next(Path(folder).glob(f"{kind}_tower.*")) for kind in ("image", "text")]
            towers = Towers(model.preprocessor, *(load(str(path)) for path in paths))
            pairs = embedding.embed_pairs(towers, data)
            sizes = [path.stat().st_size / 2**20 for path in paths]
            print(row(name, pairs, own, towers.seconds, sizes), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=paths.PRESET.read, required=True, help="a preset")
    parser.add_argument(
        "--data",
        type=paths.DATA.read,
        required=True,
        help="a table, or other data that evaluate.py takes",
    )
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    sys.exit(main(arguments.model, arguments.data, arguments.split))
