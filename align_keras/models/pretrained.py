"""Towers that start from trained weights, and the preprocessing that these expect."""

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
        **options: of ``ImageEncoder``.

    Returns:
        An ``ImageEncoder``. Its images are scaled as ``pixel_scaling`` says.

    Raises:
        InputError: if it is not a preset of this class, or a hub cannot be reached.
        MissingInputError: if the folder is missing.
    """
    with hub.one_line(preset) as found:
        backbone = keras_hub.models.EfficientNetBackbone.from_preset(found)
    return ImageEncoder(backbone, **{"name": "image_encoder", **options})


def pixel_scaling(preset: str | os.PathLike) -> dict:
    """The ``pixel_scale`` and ``pixel_offset`` that such a tower was trained with, a dict.

    They stand in ``image_converter.json`` or, in timm's layout, which keras-hub reads too, in
    ``config.json``. Empty if the preset does not say.
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
    """A text tower with the weights of a BERT; reads ``word_pieces``'s vocabulary.

    The tower's output is the last hidden state at [CLS] (paper, sec. 4.1), also where the BERT was
    trained for the mean over all positions, as sentence-transformers' are.

    Args:
        preset: ``"bert_base_en_uncased"`` or another of keras-hub's names, a local folder,
            ``"hf://USER/MODEL"`` or ``"kaggle://..."``; in keras-hub's layout or Hugging Face's.
        approximate_gelu: as in ``TextEncoder``; None for what ``has_approximate_gelu`` says.
        **options: further ones of ``TextEncoder``.

    Returns:
        A ``TextEncoder``.

    Raises:
        InputError: if it is no BERT or asks for what keras-hub's BERT has not, or a hub cannot be
            reached.
        MissingInputError: if the folder, or a file in it, is missing.
    """
    options = {"name": "text_encoder", **options}
    with hub.one_line(preset) as found:
        if (config := _hugging_face_config(preset)) is not None:
            return bert.load(found, config, approximate_gelu, **options)
        backbone = keras_hub.models.BertBackbone.from_preset(found)
    return TextEncoder(backbone, approximate_gelu is not False, **options)


def has_approximate_gelu(preset: str | os.PathLike) -> bool:
    """Whether the GELU of such a tower is the tanh approximation.

    A ``config.json`` of Hugging Face's says so: ``gelu`` is the exact one, ``gelu_new`` and
    ``gelu_pytorch_tanh`` the approximation. A preset of keras-hub's does not say; its BERT always
    takes the approximation, also for those that were made from models with the exact GELU, such as
    ``all_minilm_l6_v2_en`` and ``bge_base_en``.

    Raises:
        InputError: if it has another activation, or is no BERT.
        MissingInputError: if the folder, or a file in it, is missing.
    """
    with hub.one_line(preset) as found:
        config = _hugging_face_config(found)
        return True if config is None else bert.arguments(config)[1]


def word_pieces(preset: str | os.PathLike) -> dict:
    """The tokenizer of such a tower: arguments of ``AlignPreprocessor``, a dict.

    They are ``vocabulary`` and ``lowercase``, and ``strip_accents`` in Hugging Face's layout.

    Raises:
        InputError: if its tokenizer is not BERT's WordPiece, or has settings of its own.
        MissingInputError: if the folder, or a file in it, is missing.
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
        raise MissingInputError("no config.json in it", remedy="give the folder of a BERT")
    return None if "registered_name" in config else config
