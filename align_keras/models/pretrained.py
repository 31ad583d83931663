"""Towers that start from keras-hub presets, and what those expect of their inputs."""

import os

import keras_hub

from align_keras import hub
from align_keras.models.image_encoder import ImageEncoder
from align_keras.models.text_encoder import TextEncoder


def load_image_encoder(preset: str | os.PathLike, **options) -> ImageEncoder:
    """An image tower with the weights of a keras-hub EfficientNet.

    Args:
        preset: ``"efficientnet_b0_ra_imagenet"`` or another of keras-hub's names, a local
            folder, ``"hf://USER/MODEL"`` or ``"kaggle://..."``.
        **options: of ``ImageEncoder``.

    Returns:
        An ``ImageEncoder``. Its images are scaled as ``pixel_scaling`` says.

    Raises:
        InputError: if it is not a preset of this class, or a hub cannot be reached.
        MissingInputError: if the folder is missing.
    """
    with hub.one_line(preset):
        backbone = keras_hub.models.EfficientNetBackbone.from_preset(preset)
    return ImageEncoder(backbone, **{"name": "image_encoder", **options})


def pixel_scaling(preset: str | os.PathLike) -> dict:
    """The ``pixel_scale`` and ``pixel_offset`` that such a tower was trained with, a dict.

    Empty if the preset does not say.
    """
    with hub.one_line(preset):
        if not hub.has_file(preset, "image_converter.json"):
            return {}
        converter = keras_hub.layers.EfficientNetImageConverter.from_preset(preset)
    return {
        "pixel_scale": 1.0 if converter.scale is None else converter.scale,
        "pixel_offset": 0.0 if converter.offset is None else converter.offset,
    }


def load_text_encoder(preset: str | os.PathLike, **options) -> TextEncoder:
    """A text tower with the weights of a keras-hub BERT; reads ``word_pieces``'s vocabulary.

    Args:
        preset: ``"bert_base_en_uncased"`` or another of keras-hub's names, a local folder,
            ``"hf://USER/MODEL"`` or ``"kaggle://..."``.
        **options: of ``TextEncoder``.

    Returns:
        A ``TextEncoder``.

    Raises:
        InputError: if it is not a preset of this class, or a hub cannot be reached.
        MissingInputError: if the folder is missing.
    """
    with hub.one_line(preset):
        backbone = keras_hub.models.BertBackbone.from_preset(preset)
    return TextEncoder(backbone, **{"name": "text_encoder", **options})


def word_pieces(preset: str | os.PathLike) -> dict:
    """The ``vocabulary`` and ``lowercase`` that such a tower was trained with, a dict."""
    with hub.one_line(preset):
        tokenizer = keras_hub.tokenizers.BertTokenizer.from_preset(preset)
    return {"vocabulary": tokenizer.get_vocabulary(), "lowercase": tokenizer.lowercase}
