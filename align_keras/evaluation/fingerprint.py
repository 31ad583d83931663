"""Distinguishes models by everything that affects an embedding."""

import hashlib
import json
from typing import Any

import keras
import numpy as np

# Fields of a backbone's config that do not affect the embeddings of a trained model. Names of
# modules and layers may change while the model stays the same. Precision is taken from the towers
# instead.
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
    """64 hexadecimal digits that are equal for two models only if their embeddings are equal.

    They are a digest of the weights, the vocabulary, the preprocessing, the options of both towers
    (such as ``num_heads`` or ``approximate_gelu``) and the precision policies.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
    """
    return _digests(model)[0]


def is_fingerprint_of(found: str, model: Any) -> bool:
    """Whether a stored fingerprint belongs to the model.

    Also accepts fingerprints stored before the towers' options and precision were part of them.
    """
    return found in _digests(model)


def _digests(model: Any) -> tuple[str, str]:
    """The fingerprint, and an older form of it without the towers' options and precision."""
    digest = hashlib.sha256()
    config = {
        name: value
        for name, value in model.preprocessor.get_config().items()
        if name not in ("name", "trainable", "dtype")
        # Left out if True, since fingerprints were stored before the option existed.
        and (name, value) != ("upright", True)
    }
    digest.update(json.dumps(config, sort_keys=True).encode())
    digest.update(json.dumps(list(model.preprocessor.vocabulary)).encode())
    for weight in model.backbone.weights:
        # The weights include the states of dropout's random generators, as four-byte integers.
        # One-byte integers are quantised kernels.
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
    """A nested config without the fields that do not affect embeddings."""
    if isinstance(config, dict):
        return {
            name: _with_effect(value)
            for name, value in config.items()
            if name not in _WITHOUT_EFFECT
        }
    return [_with_effect(value) for value in config] if isinstance(config, list | tuple) else config
