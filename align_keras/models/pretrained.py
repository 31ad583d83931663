"""Towers with pretrained weights, and the preprocessing that they need."""

import os

import keras_hub

from align_keras import hub
from align_keras.errors import MissingInputError
from align_keras.models.conversion import bert
from align_keras.models.image_encoder import ImageEncoder
from align_keras.models.text_encoder import TextEncoder
from align_keras.preprocessing import hugging_face_tokenizer


def load_image_encoder(preset: str | os.PathLike, **options) -> ImageEncoder:
    """An image tower with the weights of a keras-hub EfficientNet.

    Args:
        preset: ``"efficientnet_b0_ra_imagenet"`` or another of keras-hub's names, a local
            folder, ``"hf://USER/MODEL"`` or ``"kaggle://..."``.
        **options: arguments of ``ImageEncoder``.

    Returns:
        An ``ImageEncoder``. Its images must be scaled according to ``pixel_scaling``.

    Raises:
        InputError: if it is not a preset of this class, or the hub cannot be reached.
        MissingInputError: if the folder does not exist.
    """
    with hub.one_line(preset) as found:
        backbone = keras_hub.models.EfficientNetBackbone.from_preset(found)
    return ImageEncoder(backbone, **{"name": "image_encoder", **options})


def pixel_scaling(preset: str | os.PathLike) -> dict:
    """The ``pixel_scale`` and ``pixel_offset`` with which an image tower was trained, as a dict.

    They are stored in ``image_converter.json`` or, in timm's layout, in ``config.json``; keras-hub
    reads both. The dict is empty if the preset does not state them.
    """
    with hub.one_line(preset) as found:
        if hub.has_file(found, "image_converter.json"):
            converter = keras_hub.layers.EfficientNetImageConverter.from_preset(found)
            return {
                "pixel_scale": 1.0 if converter.scale is None else converter.scale,
                "pixel_offset": 0.0 if converter.offset is None else converter.offset,
            }
        trained = (hub.read_config(found) or {}).get("pretrained_cfg") or {}
        if "mean" not in trained or "std" not in trained:
            return {}
        channels = list(zip(trained["mean"], trained["std"], strict=True))
    return {
        "pixel_scale": [1 / (255 * std) for _, std in channels],
        "pixel_offset": [-mean / std for mean, std in channels],
    }


def load_text_encoder(
    preset: str | os.PathLike, approximate_gelu: bool | None = None, **options
) -> TextEncoder:
    """A text tower with the weights of a BERT; its vocabulary comes from ``word_pieces``.

    By default the tower's output is the last hidden state at [CLS] (paper, sec. 4.1), even if the
    BERT was trained with the mean over all positions, as most of sentence-transformers' models
    were. The option ``pooling="mean"`` gives that mean.

    Args:
        preset: ``"bert_base_en_uncased"`` or another of keras-hub's names, a local folder,
            ``"hf://USER/MODEL"`` or ``"kaggle://..."``, in keras-hub's or Hugging Face's layout.
        approximate_gelu: as in ``TextEncoder``; None for the result of ``has_approximate_gelu``.
        **options: further arguments of ``TextEncoder``.

    Returns:
        A ``TextEncoder``.

    Raises:
        InputError: if it is not a BERT, needs a feature that keras-hub's BERT does not have, or the
            hub cannot be reached.
        MissingInputError: if the folder or one of its files is missing.
    """
    options = {"name": "text_encoder", **options}
    with hub.one_line(preset) as found:
        if (config := _hugging_face_config(preset)) is not None:
            return bert.load(found, config, approximate_gelu, **options)
        backbone = keras_hub.models.BertBackbone.from_preset(found)
    return TextEncoder(backbone, approximate_gelu is not False, **options)


def has_approximate_gelu(preset: str | os.PathLike) -> bool:
    """Whether the GELU of a text tower is the tanh approximation.

    Hugging Face's ``config.json`` states it: ``gelu`` is the exact GELU, ``gelu_new`` and
    ``gelu_pytorch_tanh`` are the approximation. A preset of keras-hub does not state it. Its BERT
    always uses the approximation, even for presets converted from models with the exact GELU, such
    as ``all_minilm_l6_v2_en`` and ``bge_base_en``.

    Raises:
        InputError: if it has another activation, or is not a BERT.
        MissingInputError: if the folder or one of its files is missing.
    """
    with hub.one_line(preset) as found:
        config = _hugging_face_config(found)
        return True if config is None else bert.arguments(config)[1]


def word_pieces(preset: str | os.PathLike) -> dict:
    """The tokenizer of a text tower, as a dict of arguments of ``AlignPreprocessor``.

    The keys are ``vocabulary`` and ``lowercase``, and in Hugging Face's layout also
    ``strip_accents``.

    Raises:
        InputError: if the tokenizer is not BERT's WordPiece tokenizer, or has unsupported settings.
        MissingInputError: if the folder or one of its files is missing.
    """
    with hub.one_line(preset) as found:
        if (config := _hugging_face_config(preset)) is not None:
            bert.arguments(config)
            return hugging_face_tokenizer.arguments(found, config)
        tokenizer = keras_hub.tokenizers.BertTokenizer.from_preset(found)
    return {"vocabulary": tokenizer.get_vocabulary(), "lowercase": tokenizer.lowercase}


def _hugging_face_config(preset: str | os.PathLike) -> dict | None:
    """The ``config.json`` of a preset in Hugging Face's layout; None in keras-hub's."""
    config = hub.read_config(preset)
    if config is None:
        raise MissingInputError("no config.json in the folder", remedy="give the folder of a BERT")
    return None if "registered_name" in config else config
