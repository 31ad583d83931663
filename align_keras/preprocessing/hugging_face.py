"""Hugging Face's ``AlignProcessor`` files: to arguments of ``AlignPreprocessor``, and back."""

import json
import os
from collections.abc import Collection
from typing import Any

import keras_hub
import tokenizers

from align_keras import hub
from align_keras.errors import InputError, Place
from align_keras.preprocessing.tokenizer import check_vocabulary, read_vocabulary, write_vocabulary

#: ``model_type`` in the checkpoint's ``config.json``.
MODEL_TYPE = "align"
#: Holds what the layout has no word for; others ignore it.
OWN_SETTINGS = "align_keras"
_PREPROCESSOR_FILE, _PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
_TOKENIZER_FILE, _TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_VOCABULARY_FILE = "vocab.txt"
_SEQUENCE_LENGTH = 64  # of their AlignProcessor


def arguments(preset: str | os.PathLike, config: dict) -> dict:
    """The arguments of an ``AlignPreprocessor`` that does what a checkpoint expects.

    Args:
        preset: a folder or a hub's address.
        config: its ``config.json``, a dict.

    Raises:
        InputError: if it asks for what the preprocessor has not.
    """
    tokenizer = _tokenizer_arguments(preset, config.get("text_config") or {})
    return {**tokenizer, **preprocessor_arguments(_image_processor(preset))}


def _image_processor(preset):
    """The configuration of the image processor: since transformers 5 a part of another file."""
    whole = _optional_json(preset, _PROCESSOR_FILE)
    if isinstance(whole, dict) and isinstance(whole.get("image_processor"), dict):
        return whole["image_processor"]
    return hub.read_json(preset, _PREPROCESSOR_FILE)


def _tokenizer_arguments(preset, text_config):
    """From ``tokenizer.json`` or ``vocab.txt``; ``tokenizer_config.json`` rules the casing."""
    settings = _optional_json(preset, _TOKENIZER_CONFIG_FILE)
    normalizer = {}
    if tokenizer := _optional_json(preset, _TOKENIZER_FILE):
        kind = tokenizer["model"].get("type", "WordPiece")
        if kind != "WordPiece":
            raise _fault(_TOKENIZER_FILE, f"{kind} is not supported, only WordPiece")
        vocabulary = _ordered(tokenizer["model"]["vocab"], tokenizer.get("added_tokens") or [])
        check_vocabulary(vocabulary, Place(member=_TOKENIZER_FILE))
        normalizer = tokenizer.get("normalizer") or {}
    else:
        vocabulary = read_vocabulary(hub.file_of(preset, _VOCABULARY_FILE))
    found = {
        name: settings.get(theirs, normalizer.get(name, default))
        for name, theirs, default in (
            ("lowercase", "do_lower_case", True),
            ("strip_accents", "strip_accents", None),
            ("handle_chinese_chars", "tokenize_chinese_chars", True),
        )
    }
    if not found.pop("handle_chinese_chars"):
        raise _fault(
            _TOKENIZER_CONFIG_FILE,
            "the tokenizer does not set ideographs apart, which is not supported",
        )
    # Their AlignProcessor pads to 64 whatever the tokenizer's own bound.
    positions = text_config.get("max_position_embeddings")
    bounds = [settings.get("model_max_length"), positions, _SEQUENCE_LENGTH]
    length = min(bound for bound in bounds if bound is not None)
    return {"vocabulary": vocabulary, "sequence_length": length, **found}


def _optional_json(preset, name):
    return hub.read_json(preset, name) if hub.has_file(preset, name) else {}


def _ordered(vocabulary, added_tokens):
    """Word pieces in the order of their ids, which must be 0, 1, 2, ..."""
    pieces = sorted(vocabulary, key=vocabulary.get)
    if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))):
        raise _fault(_TOKENIZER_FILE, "the ids of its vocabulary have a gap")
    for token in added_tokens:
        if vocabulary.get(token["content"]) != token["id"]:
            problem = f"the added token {token['content']!r} is not in its vocabulary"
            raise _fault(_TOKENIZER_FILE, f"{problem}, which is not supported")
    return pieces


def preprocessor_arguments(config: dict) -> dict:
    """From a ``preprocessor_config.json``: arguments of ``AlignPreprocessor``.

    Raises:
        InputError: if it asks for what the preprocessor has not.
    """
    defaults = {
        "do_resize": True,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "rescale_offset": False,
        "do_normalize": True,
        "include_top": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": 346,
        "crop_size": 289,
        OWN_SETTINGS: {},
    }
    config = {**defaults, **config}
    demand(config, _PREPROCESSOR_FILE, "", {"do_resize": [True], "resample": [2]})
    resize_size = _square(config, "size")
    scale: Any = 1.0  # a number, or one a channel
    offset: Any = 0.0
    if config["do_rescale"]:
        scale = config["rescale_factor"]
        offset = -1.0 if config["rescale_offset"] else 0.0
    if config["do_normalize"]:
        std = config["image_std"]
        pairs = zip(config["image_mean"], std, strict=True)
        offset = [(offset - mean) / deviation for mean, deviation in pairs]
        scale = [scale / deviation for deviation in std]
        if config["include_top"]:
            offset = [value / deviation for value, deviation in zip(offset, std, strict=True)]
            scale = [value / deviation for value, deviation in zip(scale, std, strict=True)]
    elif config["include_top"]:
        offset = [offset / deviation for deviation in config["image_std"]]
        scale = [scale / deviation for deviation in config["image_std"]]
    return {
        "resize_size": resize_size,
        "image_size": _square(config, "crop_size") if config["do_center_crop"] else resize_size,
        "antialias": True,
        "pixel_scale": scale,
        "pixel_offset": offset,
        **_own_settings(config[OWN_SETTINGS]),
    }


def _own_settings(found):
    """What ``preprocessor_config`` has written; a checkpoint from elsewhere gets no further."""
    kinds = {"antialias": bool, "sequence_length": int, "upright": bool}
    for name, value in found.items() if isinstance(found, dict) else [(OWN_SETTINGS, found)]:
        if type(value) is not kinds.get(name):
            known = ", ".join(kinds)
            raise _fault(
                _PREPROCESSOR_FILE, f"{name} is {value!r}; there are {known}", OWN_SETTINGS
            )
    return found


def _square(config, name):
    size = config.get(name)
    if isinstance(size, dict) and size.get("height") == size.get("width") is not None:
        return size["height"]
    if isinstance(size, int):
        return size
    raise _fault(_PREPROCESSOR_FILE, f"must be a square, not {size}", name)


def preprocessor_config(preprocessor: keras_hub.models.Preprocessor) -> dict:
    """A ``preprocessor_config.json`` of an ``AlignPreprocessor``."""
    size, crop = preprocessor.resize_size, preprocessor.image_size
    config = {
        "image_processor_type": "EfficientNetImageProcessor",
        "processor_class": "AlignProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop},
        "include_top": False,
        "do_rescale": True,
        "do_normalize": False,
        "rescale_factor": preprocessor.pixel_scale,
        "rescale_offset": True,
        OWN_SETTINGS: {
            "antialias": preprocessor.antialias,
            "sequence_length": preprocessor.sequence_length,
            "upright": preprocessor.upright,
        },
    }
    if isinstance(preprocessor.pixel_scale, float) and preprocessor.pixel_offset == -1.0:
        return config
    scales, offsets = (
        list(value) if isinstance(value, list | tuple) else [value] * 3
        for value in (preprocessor.pixel_scale, preprocessor.pixel_offset)
    )
    std = [1 / (255 * scale) for scale in scales]
    return {
        **config,
        "rescale_factor": 1 / 255,
        "rescale_offset": False,
        "do_normalize": True,
        "image_std": std,
        "image_mean": [-offset * value for offset, value in zip(offsets, std, strict=True)],
    }


def demand(config: dict, file: str, part: str, allowed: dict[str, Collection]) -> None:
    """Checks that values of a configuration are among the allowed ones.

    Args:
        config: the configuration.
        file: the preset's file that it stands in.
        part: where in the file, such as ``text_config``; empty for the whole.
        allowed: the allowed values by their names.

    Raises:
        InputError: if a value is none of them; its place has the file and the value's name.
    """
    for name, values in allowed.items():
        if config[name] not in values:
            choices = ", ".join(str(value) for value in values)
            column = f"{part}.{name}" if part else name
            raise _fault(file, f"{config[name]!r} is not supported, only {choices}", column)


def _fault(file, problem, column=""):
    """An error about a preset's file; ``hub.one_line`` adds the preset."""
    return InputError(problem, Place(member=file, column=column))


def write(preprocessor: keras_hub.models.Preprocessor, path: str | os.PathLike) -> None:
    """Writes the files of a processor into a folder."""
    _write_tokenizer(preprocessor, path)
    write_json(path, _PREPROCESSOR_FILE, preprocessor_config(preprocessor))


def _write_tokenizer(preprocessor, path):
    vocabulary = preprocessor.vocabulary
    write_vocabulary(vocabulary, os.path.join(path, _VOCABULARY_FILE))
    tokenizer = tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(vocabulary)},
        lowercase=preprocessor.lowercase,
        strip_accents=preprocessor.strip_accents,
    )
    tokenizer.save(os.path.join(path, _TOKENIZER_FILE))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "processor_class": "AlignProcessor",
        "do_lower_case": preprocessor.lowercase,
        "strip_accents": preprocessor.strip_accents,
        "tokenize_chinese_chars": True,
        "model_max_length": preprocessor.sequence_length,
        **{f"{name.lower()}_token": f"[{name}]" for name in ("CLS", "SEP", "PAD", "UNK", "MASK")},
    }
    write_json(path, _TOKENIZER_CONFIG_FILE, settings)


def write_json(path: str | os.PathLike, name: str, content: Any) -> None:
    """Writes a JSON file into a folder."""
    with open(os.path.join(path, name), "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
