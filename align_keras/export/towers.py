"""Exports the two towers separately, for ONNX Runtime and LiteRT. Preprocessing is not included."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from align_keras.errors import InputError
from align_keras.export import model_card
from align_keras.models.litert import any_batch
from align_keras.preprocessing.fields import TEXT_INPUTS
from align_keras.preprocessing.tokenizer import write_vocabulary

SUFFIXES = {"onnx": "onnx", "litert": "tflite"}
#: Types in which LiteRT can store weights; it computes in float32.
QUANTIZATIONS = ("float16", "int8")


def write_towers(model: Any, folder: Path, format: str, quantize: str | None = None) -> None:
    """Writes ``image_tower`` and ``text_tower``, the vocabulary and a card.

    Both converters fold the batch norms into the kernels.

    Args:
        model: an ``AlignDualEncoder`` with a preprocessor.
        folder: an empty folder.
        format: ``"onnx"`` or ``"litert"``.
        quantize: type of the stored weights for LiteRT, ``"float16"`` or ``"int8"``; None for
            float32. ``"int8"`` applies to large layers, with one scale per channel.

    Raises:
        InputError: if an option does not fit the format, the format needs a package that is not
            installed, or the model does not compute in float32.
    """
    options = _converter_options(format, quantize)
    if model.backbone.compute_dtype != "float32":
        raise InputError(
            f"{format} needs float32, but the model computes in {model.backbone.compute_dtype}",
            remedy="load it with dtype='float32'",
            setting="format",
        )
    files = []
    for name, tower in (("image_tower", image_tower(model)), ("text_tower", text_tower(model))):
        files.append(f"{name}.{SUFFIXES[format]}")
        # Given explicitly: by default, Keras needs a model that has been called.
        signature = [keras.tree.map_structure(any_batch, tower.input)]
        path = str(folder / files[-1])
        with warnings.catch_warnings():
            # Keras adapts tf2onnx to NumPy 2 by looking up an attribute for which NumPy warns.
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            tower.export(path, format, verbose=False, input_signature=signature, **options)
    write_vocabulary(model.preprocessor.vocabulary, str(folder / "vocabulary.txt"))
    card = model_card.of_towers(model, files, quantize)
    (folder / "README.md").write_text(card, encoding="utf-8")


def image_tower(model: Any) -> keras.Model:
    """A Keras model that maps ``images``, scaled as for ``encode_images``, to embeddings."""
    size = model.preprocessor.image_size
    images = keras.Input((size, size, 3), name="images")
    outputs = {"image_embeddings": model.backbone.encode_images(images)}
    return keras.Model(images, outputs, name="image_tower")


def text_tower(model: Any) -> keras.Model:
    """A Keras model that maps a dict of word pieces to embeddings."""
    length = model.preprocessor.sequence_length
    pieces = {name: keras.Input((length,), dtype="int32", name=name) for name in TEXT_INPUTS}
    outputs = {"text_embeddings": model.backbone.encode_texts(pieces)}
    return keras.Model(pieces, outputs, name="text_tower")


def _converter_options(format: str, quantize: str | None) -> dict[str, Any]:
    if quantize is not None and (format != "litert" or quantize not in QUANTIZATIONS):
        raise InputError(
            f"{quantize} does not apply to {format}",
            remedy=f"LiteRT has {' and '.join(QUANTIZATIONS)}",
            setting="quantize",
        )
    if format == "onnx":
        try:
            importlib.import_module("tf2onnx")
        except ImportError as error:
            raise InputError(
                "ONNX needs tf2onnx", remedy="pip install 'align-keras[onnx]'", setting="format"
            ) from error
        return {}
    if quantize is None:
        return {}
    options: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantize == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    return options
