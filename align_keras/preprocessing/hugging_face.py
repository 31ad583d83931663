"""Converts Hugging Face's ``AlignProcessor`` files to ``AlignPreprocessor`` arguments, and back."""

import math
import os
from typing import Any

import keras_hub

from align_keras import hub
from align_keras.preprocessing import hugging_face_tokenizer

#: ``model_type`` in the checkpoint's ``config.json``.
MODEL_TYPE = "align"
#: Key for settings that the layout does not have; other programs ignore it.
OWN_SETTINGS = "align_keras"
_PREPROCESSOR_FILE, _PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
_SEQUENCE_LENGTH = 64  # of Hugging Face's AlignProcessor
_POSITIONS = 512  # of Hugging Face's text tower, if config.json does not state it


def arguments(preset: str | os.PathLike, config: dict) -> dict:
    """The arguments of the ``AlignPreprocessor`` that a checkpoint needs.

    Args:
        preset: a folder or the address of a preset on a hub.
        config: contents of the checkpoint's ``config.json``.

    Raises:
        InputError: if the checkpoint needs a feature that the preprocessor does not have.
    """
    text_config = config.get("text_config") or {}
    # Hugging Face's AlignProcessor pads to 64, whatever the limit of the tokenizer.
    bounds = [hugging_face_tokenizer.max_length(preset), _SEQUENCE_LENGTH]
    positions = text_config.get("max_position_embeddings", _POSITIONS)
    # Values of other types are rejected when the tower is built.
    if isinstance(positions, int):
        bounds.append(positions)
    found = {
        "sequence_length": int(min(bounds)),
        **preprocessor_arguments(_image_processor(preset)),
    }
    length = found["sequence_length"]
    if isinstance(positions, int) and length > positions:
        problem = f"sequence_length is {length}, but config.json has {positions} positions"
        raise hub.fault(_PREPROCESSOR_FILE, problem, OWN_SETTINGS)
    return {**hugging_face_tokenizer.arguments(preset, text_config), **found}


def _image_processor(preset):
    """The configuration of the image processor; since transformers 5 it is part of another file."""
    whole = hub.read_json(preset, _PROCESSOR_FILE) if hub.has_file(preset, _PROCESSOR_FILE) else {}
    if isinstance(whole, dict) and isinstance(whole.get("image_processor"), dict):
        return whole["image_processor"]
    return hub.read_json(preset, _PREPROCESSOR_FILE)


def preprocessor_arguments(config: dict) -> dict:
    """Converts a ``preprocessor_config.json`` to arguments of ``AlignPreprocessor``.

    Raises:
        InputError: if it needs a feature that the preprocessor does not have.
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
    if not isinstance(config, dict):
        raise hub.fault(_PREPROCESSOR_FILE, "is not a JSON object")
    config = {**defaults, **config}
    switches = ("do_center_crop", "do_rescale", "rescale_offset", "do_normalize", "include_top")
    allowed: dict[str, list] = {
        "do_resize": [True],
        "resample": [2],
        **{name: [True, False] for name in switches},
    }
    hub.demand(config, _PREPROCESSOR_FILE, "", allowed)
    resize_size = _square(config, "size")
    image_size = _square(config, "crop_size") if config["do_center_crop"] else resize_size
    if image_size > resize_size:
        problem = f"{image_size} is more than {resize_size}, the size"
        raise hub.fault(_PREPROCESSOR_FILE, problem, "crop_size")
    scale, offset = _pixel_scaling(config)
    return {
        "resize_size": resize_size,
        "image_size": image_size,
        "antialias": True,
        "pixel_scale": scale,
        "pixel_offset": offset,
        **_own_settings(config[OWN_SETTINGS]),
    }


def _pixel_scaling(config: dict) -> tuple[Any, Any]:
    """The factor for pixels and the offset added afterwards, each one number or one per channel."""
    scale: Any = 1.0
    offset: Any = 0.0
    if config["do_rescale"]:
        scale = _number(config["rescale_factor"], "rescale_factor")
        offset = -1.0 if config["rescale_offset"] else 0.0
    std = _channels(config, "image_std")
    if 0 in std:
        raise hub.fault(_PREPROCESSOR_FILE, "must not be 0", "image_std")
    if config["do_normalize"]:
        pairs = zip(_channels(config, "image_mean"), std, strict=True)
        offset = [(offset - mean) / deviation for mean, deviation in pairs]
        scale = [scale / deviation for deviation in std]
        if config["include_top"]:
            offset = [value / deviation for value, deviation in zip(offset, std, strict=True)]
            scale = [value / deviation for value, deviation in zip(scale, std, strict=True)]
    elif config["include_top"]:
        offset = [offset / deviation for deviation in std]
        scale = [scale / deviation for deviation in std]
    return scale, offset


def _own_settings(found):
    """Checks the settings that ``preprocessor_config`` wrote; other checkpoints have none."""
    kinds = {"antialias": bool, "sequence_length": int, "upright": bool}
    for name, value in found.items() if isinstance(found, dict) else [(OWN_SETTINGS, found)]:
        if type(value) is not kinds.get(name):
            known = ", ".join(kinds)
            raise hub.fault(
                _PREPROCESSOR_FILE, f"{name} is {value!r}; supported: {known}", OWN_SETTINGS
            )
    return found


def _square(config, name):
    size = config.get(name)
    if isinstance(size, dict) and size.get("height") == size.get("width") is not None:
        size = size["height"]
    if type(size) is int and size > 0:
        return size
    raise hub.fault(_PREPROCESSOR_FILE, f"must be a square, not {size!r}", name)


def _channels(config, name):
    """Three numbers, one per channel; a single number applies to all channels."""
    values = config[name]
    if not isinstance(values, list):
        values = [values] * 3
    if len(values) != 3:
        problem = f"must be three numbers, one per channel, not {len(values)}"
        raise hub.fault(_PREPROCESSOR_FILE, problem, name)
    return [_number(value, name) for value in values]


def _number(value, name):
    if type(value) in (int, float) and math.isfinite(value):
        return value
    raise hub.fault(_PREPROCESSOR_FILE, f"must be a number, not {value!r}", name)


def preprocessor_config(preprocessor: keras_hub.models.Preprocessor) -> dict:
    """The ``preprocessor_config.json`` of an ``AlignPreprocessor``."""
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


def write(preprocessor: keras_hub.models.Preprocessor, path: str | os.PathLike) -> None:
    """Writes the files of a processor into a folder."""
    hugging_face_tokenizer.write(preprocessor, path)
    hub.write_json(path, _PREPROCESSOR_FILE, preprocessor_config(preprocessor))
