"""Tells models apart by everything that changes an embedding."""

import hashlib
import json
from typing import Any

import keras
import numpy as np

# Fields of a backbone's config that leave the embeddings of a trained model as they are. Names of
# modules and layers change without the model; precision is taken from the towers instead.
_WITHOUT_EFFECT = {
    "batch_norm_momentum",
    "build_config",
    "dropout",
    "dtype",
    "image_feature_dropout",
    "frozen_statistics",
    "module",
    "name",
    "registered_name",
    "rematerialize",
    "space_to_batch",
    "synchronized_batch_norm",
    "trainable",
}


def fingerprint(model: Any) -> str:
    """64 hexadecimal digits that are the same for two models only if their embeddings are.

    They are a digest of the weights, the vocabulary, the preprocessing, the options of both towers
    (such as ``num_heads`` or ``approximate_gelu``) and the precision policies.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
    """
    return _digests(model)[0]


def is_fingerprint_of(found: str, model: Any) -> bool:
    """Whether a stored fingerprint is the model's.

    It may have been stored before the towers' options and precision were part of it.
    """
    return found in _digests(model)


def _digests(model: Any) -> tuple[str, str]:
    """The fingerprint, and the one without the towers' options and precision."""
    digest = hashlib.sha256()
    config = {
        name: value
        for name, value in model.preprocessor.get_config().items()
        if name not in ("name", "trainable", "dtype")
        # Turned on it is left out: fingerprints were stored before it was an option.
        and (name, value) != ("upright", True)
    }
    digest.update(json.dumps(config, sort_keys=True).encode())
    digest.update(json.dumps(list(model.preprocessor.vocabulary)).encode())
    for weight in model.backbone.weights:
        # The states of dropout's generators are among them, as integers of four bytes; those of one
        # byte are quantised kernels.
        if keras.backend.is_float_dtype(weight.dtype) or weight.dtype in ("int8", "uint8"):
            digest.update(np.asarray(weight).tobytes())
    without_options = digest.hexdigest()
    backbone = model.backbone
    parts = (backbone, backbone.image_encoder, backbone.text_encoder)
    precision = [part.dtype_policy.name for part in parts]
    architecture = [_with_effect(backbone.get_config()), precision]
    digest.update(json.dumps(architecture, sort_keys=True).encode())
    return digest.hexdigest(), without_options


def _with_effect(config: Any) -> Any:
    """A config, nested, without the fields that leave embeddings as they are."""
    if isinstance(config, dict):
        return {
            name: _with_effect(value)
            for name, value in config.items()
            if name not in _WITHOUT_EFFECT
        }
    return [_with_effect(value) for value in config] if isinstance(config, list | tuple) else config
