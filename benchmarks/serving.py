"""Compares an exported model with the model in memory and with Hugging Face's ``AlignModel``.

    pip install -e '.[benchmarks]' && python benchmarks/serving.py

Throughput and latency are measured from JPEG files and strings to embeddings. The model is
EfficientNet-B0 at 224 pixels with BERT-mini, in float32. The benchmark compares the signatures of
the SavedModel, ``encode_images`` and ``encode_texts`` in TensorFlow and in LiteRT, and PyTorch with
Pillow and a fast tokenizer. Pillow averages pixels when it shrinks an image, and so
do the cases "averaged" (``antialias=True``). The other cases sample pixels, which is the default
here. Each case runs in its own process, and the cases take turns. PyTorch runs with its fastest
settings: ``channels_last``, captions padded only to the longest one, and a glibc that keeps freed
memory, because PyTorch otherwise spends its time on page faults.
"""

import argparse
import functools
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
from peers import BERT_MINI, KEEP_MEMORY, SEQUENCE

IMAGE_SIZE, RESIZE_SIZE, WIDTH = 224, 256, 320
FILES, ROUNDS, SECONDS = 64, 5, 0.8
FORMS = (
    *("AlignModel", "in memory", "SavedModel", "LiteRT"),
    *("in memory, averaged", "SavedModel, averaged", "LiteRT, averaged"),
)


def own_model(vocabulary, antialias=False):
    """Makes this package's model, with the same weights in every process."""
    import keras

    from align_keras import (
        AlignBackbone,
        AlignDualEncoder,
        AlignPreprocessor,
        build_image_encoder,
        build_text_encoder,
    )

    keras.utils.set_random_seed(0)
    sizes = IMAGE_SIZE, RESIZE_SIZE, SEQUENCE
    preprocessor = AlignPreprocessor(vocabulary, *sizes, antialias=antialias)
    text_encoder = build_text_encoder("bert_mini", len(preprocessor.vocabulary), SEQUENCE)
    backbone = AlignBackbone(build_image_encoder("efficientnet_b0"), text_encoder, WIDTH)
    return AlignDualEncoder(backbone, preprocessor)


def in_memory(vocabulary, saved_model, antialias=False, runtime="tensorflow"):
    """Returns functions that embed a batch of images or captions with the model in memory."""
    model = own_model(vocabulary, antialias)
    model.use_runtime(runtime)
    return {"images": model.encode_images, "texts": model.encode_texts}


def exported(vocabulary, saved_model):
    """Returns functions that embed a batch with the exported signatures."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    signatures = tf.saved_model.load(saved_model).signatures
    return {
        "images": lambda batch: signatures["encode_image"](images=tf.constant(batch))[
            "image_embeddings"
        ].numpy(),
        "texts": lambda batch: signatures["encode_text"](captions=tf.constant(batch))[
            "text_embeddings"
        ].numpy(),
    }


def peer_pixels(encoded):
    """Returns the crop of a file, made by Pillow for the peer: float32, ``(height, width, 3)``."""
    import io

    import numpy as np
    from PIL import Image

    margin = (RESIZE_SIZE - IMAGE_SIZE) // 2
    corners = (margin, margin, margin + IMAGE_SIZE, margin + IMAGE_SIZE)
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    image = image.resize((RESIZE_SIZE, RESIZE_SIZE), Image.Resampling.BILINEAR).crop(corners)
    return np.asarray(image, np.float32) / 127.5 - 1.0


def peer(vocabulary, saved_model):
    """Returns functions that embed a batch with Hugging Face's processor and model in PyTorch."""
    import numpy as np
    import torch
    import torch_loader
    import transformers

    torch.set_num_threads(os.cpu_count())
    cutter = torch_loader.tokenizer(vocabulary)
    config = transformers.AlignConfig(
        text_config={
            "vocab_size": len(cutter),
            "hidden_size": BERT_MINI["hidden_dim"],
            "num_hidden_layers": BERT_MINI["num_layers"],
            "num_attention_heads": BERT_MINI["num_heads"],
            "intermediate_size": BERT_MINI["intermediate_dim"],
        },
        vision_config={
            "image_size": IMAGE_SIZE,
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "hidden_dim": 1_280,
        },
        projection_dim=WIDTH,
    )
    model = transformers.AlignModel(config).eval().to(memory_format=torch.channels_last)

    def normalized(output):
        return torch.nn.functional.normalize(getattr(output, "pooler_output", output)).numpy()

    def crops(batch):
        with torch.inference_mode():
            return normalized(model.get_image_features(pixel_values=batch.permute(0, 3, 1, 2)))

    def images(batch):
        return crops(torch.from_numpy(np.stack([peer_pixels(encoded) for encoded in batch])))

    def texts(batch):
        with torch.inference_mode():
            tokens = torch_loader.tokenize(cutter, batch, SEQUENCE, padding="longest")
            return normalized(model.get_text_features(**tokens))

    return {"images": images, "crops": crops, "texts": texts}


def run(form, kind, batch_size, folder):
    """Measures one case, in its own process."""
    if form == "AlignModel":
        load = peer
    elif form.startswith("SavedModel"):
        load = exported
    else:
        runtime = "litert" if form.startswith("LiteRT") else "tensorflow"
        load = functools.partial(in_memory, antialias="averaged" in form, runtime=runtime)
    encode = load(f"{folder}/vocab.txt", f"{folder}/{form}")[kind]
    if kind == "images":
        values = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    else:
        values = json.loads((Path(folder) / "captions.json").read_text())
    starts = itertools.cycle(range(0, len(values), batch_size))
    batches = (encode(values[start : start + batch_size]) for start in starts)
    measure.take_turns(batches, batch_size, SECONDS)


def main(kinds, batch_sizes):
    """Exports the models, measures in turns and prints a table of the medians of all turns."""
    os.environ.update(KEEP_MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        what = photographs.write(Path(folder), FILES)
        captions = json.loads((Path(folder) / "captions.json").read_text())
        vocabulary = photographs.vocabulary(Path(folder), captions)
        if vocabulary != f"{folder}/vocab.txt":
            Path(f"{folder}/vocab.txt").write_bytes(Path(vocabulary).read_bytes())
        for form in ("SavedModel", "SavedModel, averaged"):
            model = own_model(vocabulary, antialias="averaged" in form)
            model.export(f"{folder}/{form}", warm_up_requests=False)
        print(f"{measure.machine()}; EfficientNet-B0 at {IMAGE_SIZE}, BERT-mini, float32\n{what}\n")
        titles = f"{'items/s':>9}{'ms/batch':>9}{'of AlignModel':>14}{'of memory':>10}"
        print(f"{'':<28}{'batch':>5}{titles}")
        for kind, batch_size in itertools.product(kinds, batch_sizes):
            case = {"kind": kind, "batch_size": batch_size, "folder": folder}
            forms = FORMS if kind == "images" else FORMS[:4]
            cases = {form: {"form": form, **case} for form in forms}
            turns = measure.side_by_side(__file__, cases, ROUNDS)
            for form in forms:
                speed = statistics.median(turn[form] for turn in turns)
                ratios = [
                    statistics.median(turn[form] / turn[other] for turn in turns)
                    for other in FORMS[:2]
                ]
                print(
                    f"{kind + ', ' + form:<28}{batch_size:>5}{speed:>9.1f}"
                    f"{1000 * batch_size / speed:>9.1f}{ratios[0]:>14.2f}{ratios[1]:>10.2f}",
                    flush=True,
                )
            peer = statistics.median(turn["AlignModel"] for turn in turns)
            best = {"images": {1: 1.2, 32: 1.5}, "texts": {1: 1.0, 32: 1.5}}[kind].get(batch_size)
            for form in forms[1:]:
                speed = statistics.median(turn[form] for turn in turns)
                what = f"{kind}, {batch_size} at a time, {form}: items/s of AlignModel"
                measure.ratio(what, speed / peer, best)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    parser.add_argument("--kinds", nargs="+", default=["images", "texts"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 32])
    arguments = parser.parse_args()
    if arguments.case:
        sys.exit(run(**json.loads(arguments.case)))
    sys.exit(main(arguments.kinds, arguments.batch_sizes))
