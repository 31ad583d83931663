"""Checkpoints in the layout of Hugging Face's ``AlignModel``, in and out, without PyTorch.

The only public ALIGN weights, kakaobrain/align-base, have it: ``config.json``,
``model.safetensors`` (one file, or several with an index), ``preprocessor_config.json`` and the
tokenizer's files. What differs from training here: their towers pad, skip and squash as in
``ImageEncoder(first_block_residuals=False)`` and ``TextEncoder(approximate_gelu=False)``, and
their images are resized by Pillow.
"""

import functools
import json
import math
import os

import keras
import keras_hub
import numpy as np
import safetensors.numpy
import tokenizers
from keras.src.backend.common import global_state
from keras_hub.src.utils import preset_utils

from align_keras.contrastive_model import MIN_TEMPERATURE
from align_keras.conversion import config as configs
from align_keras.conversion.weights import backbone_weights
from align_keras.image_encoder import ImageEncoder
from align_keras.text_encoder import TextEncoder
from align_keras.tokenizer import check_vocabulary, read_vocabulary, write_vocabulary

MODEL_TYPE = "align"
_PREPROCESSOR_FILE = "preprocessor_config.json"
_TOKENIZER_FILE, _TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_VOCABULARY_FILE = "vocab.txt"
_SEQUENCE_LENGTH = 64  # of their AlignProcessor


class Loader(preset_utils.PresetLoader):
    """Reads such a checkpoint, as keras-hub's preset loaders read theirs.

    Args:
        preset: a folder or a hub's address.
        config: its ``config.json``, a dict.
    """

    def load_backbone(self, cls, load_weights=True, **kwargs):
        """An ``AlignBackbone`` (``cls``) of the configuration, with the weights."""
        if not load_weights:
            return self._build(cls, **kwargs)
        files = self._tensor_files()
        # Variables are made without a value, and each gets its tensor in place of a random initial
        # one, one after another: no two copies of the weights are ever in memory.
        pending = list(global_state.get_global_attribute("uninitialized_variables") or [])
        try:
            with keras.StatelessScope(initialize_variables=False):
                backbone = self._build(cls, **kwargs)
            weights = list(backbone_weights(backbone))
            _check_tensors(weights, files)
            for weight in weights:
                weight.variable._initializer = functools.partial(_read_weight, weight, files)
            for variable in backbone.variables:
                variable._deferred_initialize()
        finally:
            # Whatever happened, Keras is not to make up for the rest.
            global_state.set_global_attribute("uninitialized_variables", pending)
        return backbone

    def _build(self, cls, **kwargs):
        text, approximate_gelu = configs.text_arguments(self.config.get("text_config") or {})
        vision, momentum = configs.vision_arguments(self.config.get("vision_config") or {})
        backbone = cls(
            ImageEncoder(
                keras_hub.models.EfficientNetBackbone(**vision),
                batch_norm_momentum=momentum,
                first_block_residuals=False,
                name="image_encoder",
            ),
            TextEncoder(
                keras_hub.models.BertBackbone(**text),
                approximate_gelu=approximate_gelu,
                name="text_encoder",
            ),
            projection_dim=self._own("projection_dim"),
            **kwargs,
        )
        if backbone.image_projection is not None:
            raise ValueError(
                f"config.json: projection_dim is {backbone.projection_dim}, where the image tower "
                f"is {backbone.image_encoder.output_shape[-1]} wide"
            )
        return backbone

    def _tensor_files(self):
        """The local file of each tensor by its name; fetches what is on a hub."""
        index = preset_utils.SAFETENSOR_CONFIG_FILE
        if preset_utils.check_file_exists(self.preset, index):
            names = self._json(index)["weight_map"]
            paths = {name: preset_utils.get_file(self.preset, name) for name in set(names.values())}
            return {name: paths[file] for name, file in names.items()}
        path = preset_utils.get_file(self.preset, preset_utils.SAFETENSOR_FILE)
        with safetensors.safe_open(path, "np") as file:
            return dict.fromkeys(file.keys(), path)

    def load_preprocessor(self, cls, **options):
        """An ``AlignPreprocessor`` (``cls``) that does what the checkpoint expects."""
        tokenizer = self._tokenizer_arguments()
        images = configs.preprocessor_arguments(self._json(_PREPROCESSOR_FILE))
        return cls(**{**tokenizer, **images, **options})

    def load_task(self, cls, load_weights=True, load_task_weights=True, dtype=None, **kwargs):
        """An ``AlignDualEncoder`` (``cls``) with backbone, preprocessor and temperature."""
        temperature = self._own("temperature_init_value")
        if load_weights:
            temperature = float(_read("temperature", self._tensor_files()).item())
        if not temperature > 0.0:
            raise ValueError(f"the temperature is {temperature}, not above 0")
        model = cls(
            **{
                # First: making a tokenizer takes memory for a moment.
                "preprocessor": self.load_preprocessor(cls.preprocessor_cls),
                "backbone": self.load_backbone(cls.backbone_cls, load_weights, dtype=dtype),
                "initial_temperature": temperature,
                "min_temperature": min(temperature, MIN_TEMPERATURE),
                **kwargs,
            }
        )
        if load_weights:
            model.log_temperature.assign(math.log(temperature))
        return model

    def _own(self, name):
        return self.config.get(name, configs.DEFAULTS[name])

    def _json(self, name):
        return preset_utils.load_json(self.preset, name)

    def _tokenizer_arguments(self):
        """From ``tokenizer.json`` or ``vocab.txt``; ``tokenizer_config.json`` rules the casing."""
        settings = self._optional_json(_TOKENIZER_CONFIG_FILE)
        normalizer = {}
        if tokenizer := self._optional_json(_TOKENIZER_FILE):
            kind = tokenizer["model"].get("type", "WordPiece")
            if kind != "WordPiece":
                raise ValueError(f"{_TOKENIZER_FILE}: {kind} is not supported, only WordPiece")
            vocabulary = _ordered(tokenizer["model"]["vocab"], tokenizer.get("added_tokens") or [])
            check_vocabulary(vocabulary, _TOKENIZER_FILE)
            normalizer = tokenizer.get("normalizer") or {}
        else:
            vocabulary = read_vocabulary(preset_utils.get_file(self.preset, _VOCABULARY_FILE))
        found = {
            name: settings.get(theirs, normalizer.get(name, default))
            for name, theirs, default in (
                ("lowercase", "do_lower_case", True),
                ("strip_accents", "strip_accents", None),
                ("handle_chinese_chars", "tokenize_chinese_chars", True),
            )
        }
        if not found.pop("handle_chinese_chars"):
            raise ValueError("the tokenizer does not set ideographs apart, which is not supported")
        # Their AlignProcessor pads to 64 whatever the tokenizer's own bound.
        positions = (self.config.get("text_config") or {}).get("max_position_embeddings")
        bounds = [settings.get("model_max_length"), positions, _SEQUENCE_LENGTH]
        length = min(bound for bound in bounds if bound is not None)
        return {"vocabulary": vocabulary, "sequence_length": length, **found}

    def _optional_json(self, name):
        return self._json(name) if preset_utils.check_file_exists(self.preset, name) else {}


def _ordered(vocabulary, added_tokens):
    """Word pieces in the order of their ids, which must be 0, 1, 2, ..."""
    pieces = sorted(vocabulary, key=vocabulary.get)
    if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))):
        raise ValueError(f"{_TOKENIZER_FILE}: the ids of its vocabulary have a gap")
    for token in added_tokens:
        if vocabulary.get(token["content"]) != token["id"]:
            raise ValueError(
                f"{_TOKENIZER_FILE}: the added token {token['content']!r} is not in its "
                "vocabulary, which is not supported"
            )
    return pieces


def _check_tensors(weights, files):
    """Raises ValueError if a weight has no tensor, or one of another shape."""
    opened = {path: safetensors.safe_open(path, "np") for path in set(files.values())}
    for weight in weights:
        if weight.name not in files:
            raise ValueError(f"{preset_utils.SAFETENSOR_FILE}: no tensor {weight.name} in it")
        weight.check(tuple(opened[files[weight.name]].get_slice(weight.name).get_shape()))


def _read(name, files):
    # Opened anew each time: what is read of a mapped file stays in memory until it is closed.
    with safetensors.safe_open(files[name], "np") as file:
        return file.get_tensor(name)


def _read_weight(weight, files, shape, dtype=None):
    """A weight's value: a Keras initializer."""
    return keras.ops.convert_to_tensor(weight.to_keras(_read(weight.name, files)), dtype)


def export(model, path):
    """Writes an ``AlignDualEncoder`` as such a checkpoint.

    ``AlignModel`` of Hugging Face's transformers reads it, and so does ``from_preset``.

    Args:
        model: with its preprocessor.
        path: a folder, which is made.

    Raises:
        ValueError: if the layout cannot express the model: the image tower must be one of
            EfficientNet's, as wide as the embeddings, and there must be a preprocessor.
    """
    backbone, preprocessor = model.backbone, model.preprocessor
    if preprocessor is None:
        raise ValueError("the model has no preprocessor, whose settings the layout holds")
    if backbone.image_projection is not None:
        raise ValueError(
            "the Hugging Face layout has no projection of images: projection_dim "
            f"({backbone.projection_dim}) must be the image tower's width "
            f"({backbone.image_encoder.output_shape[-1]})"
        )
    if backbone.image_encoder.has_first_block_residuals:
        raise ValueError(
            "the Hugging Face layout has no residual in the first block of a stage; this narrow "
            "tower has one; build it with first_block_residuals=False"
        )
    config = {
        "architectures": ["AlignModel"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "projection_dim": backbone.projection_dim,
        "temperature_init_value": model.initial_temperature,
        "text_config": configs.text_config(backbone.text_encoder),
        "vision_config": configs.vision_config(backbone.image_encoder, preprocessor.image_size),
    }
    os.makedirs(path, exist_ok=True)
    _write_tensors(model, path)
    _write_tokenizer(preprocessor, path)
    _write_json(path, _PREPROCESSOR_FILE, configs.preprocessor_config(preprocessor))
    # The last: a folder without it is no checkpoint.
    _write_json(path, "config.json", config)


def _write_tensors(model, path):
    tensors = {weight.name: weight.from_keras() for weight in backbone_weights(model.backbone)}
    counts = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), "int64")
        for name in tensors
        if name.endswith("running_mean")
    }
    width = model.backbone.text_encoder.output_shape[-1]
    # BERT's own pooler, which the model computes and does not use.
    pooler = {
        "text_model.pooler.dense.weight": np.zeros((width, width), "float32"),
        "text_model.pooler.dense.bias": np.zeros(width, "float32"),
    }
    temperature = {"temperature": np.array(math.exp(model.log_temperature.numpy()), "float32")}
    file = os.path.join(path, preset_utils.SAFETENSOR_FILE)
    safetensors.numpy.save_file(
        {**tensors, **counts, **pooler, **temperature}, f"{file}.partial", metadata={"format": "pt"}
    )
    os.replace(f"{file}.partial", file)


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
    _write_json(path, _TOKENIZER_CONFIG_FILE, settings)


def _write_json(path, name, content):
    with open(os.path.join(path, name), "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
