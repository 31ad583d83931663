"""Converts configurations of Hugging Face's ``AlignModel`` to constructor arguments, and back."""

import math
from typing import Any

from align_keras import hub
from align_keras.errors import InputError
from align_keras.models.efficientnet import keras_hub_dropout
from align_keras.models.image_encoder import ImageEncoder
from align_keras.models.text_encoder import TextEncoder

#: The defaults of Hugging Face's classes for values that are missing in a file.
TEXT_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
VISION_DEFAULTS = {
    "num_channels": 3,
    "width_coefficient": 2.0,
    "depth_coefficient": 3.1,
    "depth_divisor": 8,
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "depthwise_padding": [],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "squeeze_expansion_ratio": 0.25,
    "hidden_act": "swish",
    "pooling_type": "mean",
    "batch_norm_eps": 0.001,
    "batch_norm_momentum": 0.99,
    "drop_connect_rate": 0.2,
}
DEFAULTS = {"projection_dim": 640, "temperature_init_value": 1.0}

# Hugging Face's names of the GELU: exact, and the tanh approximation.
_APPROXIMATE_GELU = {"gelu": False, "gelu_new": True, "gelu_pytorch_tanh": True}


def text_arguments(config: dict, part: str = "text_config") -> tuple[dict, bool]:
    """Converts a BERT configuration to arguments of ``BertBackbone`` and ``approximate_gelu``.

    Attention gets the dropout rate of the hidden states, since keras-hub's BERT has one rate for
    both.

    Args:
        config: the ``text_config`` of a checkpoint, or the entire ``config.json`` of a BERT.
        part: name of that part of ``config.json``; empty for the entire file.

    Raises:
        InputError: if it needs a feature that keras-hub's BERT does not have.
    """
    config = {**TEXT_DEFAULTS, **config}
    hub.demand(
        config,
        "config.json",
        part,
        {
            "layer_norm_eps": [1e-12],
            "hidden_act": _APPROXIMATE_GELU,
            "position_embedding_type": ["absolute"],
            "is_decoder": [False],
        },
    )
    for name, default in TEXT_DEFAULTS.items():
        value = config[name]
        if type(default) is int and (type(value) is not int or value < 1):
            column = f"{part}.{name}" if part else name
            raise hub.fault("config.json", f"must be a number above 0, not {value!r}", column)
    backbone = {
        "vocabulary_size": config["vocab_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "hidden_dim": config["hidden_size"],
        "intermediate_dim": config["intermediate_size"],
        "dropout": config["hidden_dropout_prob"],
        "max_sequence_length": config["max_position_embeddings"],
        "num_segments": config["type_vocab_size"],
    }
    return backbone, _APPROXIMATE_GELU[config["hidden_act"]]


def vision_arguments(config: dict) -> tuple[dict, float]:
    """Converts a ``vision_config`` to arguments of ``EfficientNetBackbone`` and the momentum.

    Raises:
        InputError: if it needs a feature that the tower does not have.
    """
    config = {**VISION_DEFAULTS, **config}
    _check_vision(config)
    # "unfused" projects with k x k if the ratio is 1. "v1" pads symmetrically, which makes no
    # difference at stride 1.
    block_types = ["v1" if ratio == 1 else "unfused" for ratio in config["expand_ratios"]]
    stages, repeats = len(config["kernel_sizes"]), config["num_block_repeats"]
    backbone = {
        "stackwise_width_coefficients": [config["width_coefficient"]] * stages,
        "stackwise_depth_coefficients": [config["depth_coefficient"]] * stages,
        "stackwise_kernel_sizes": config["kernel_sizes"],
        "stackwise_num_repeats": repeats,
        "stackwise_input_filters": config["in_channels"],
        "stackwise_output_filters": config["out_channels"],
        "stackwise_expansion_ratios": config["expand_ratios"],
        "stackwise_squeeze_and_excite_ratios": [config["squeeze_expansion_ratio"]] * stages,
        "stackwise_strides": config["strides"],
        "stackwise_block_types": block_types,
        "stackwise_force_input_filters": [0] * stages,
        "stackwise_nores_option": [False] * stages,
        "dropout": keras_hub_dropout(
            config["drop_connect_rate"], config["depth_coefficient"], repeats
        ),
        "depth_divisor": config["depth_divisor"],
        "min_depth": config["depth_divisor"],
        "cap_round_filter_decrease": True,
        "include_stem_padding": False,
        "stem_conv_padding": "valid",
        "batch_norm_epsilon": config["batch_norm_eps"],
        "activation": "swish",
    }
    return backbone, config["batch_norm_momentum"]


def _check_vision(config):
    """Raises InputError if a ``vision_config`` needs a feature that the tower does not have."""
    stages = len(config["kernel_sizes"])
    lists = ("in_channels", "out_channels", "strides", "num_block_repeats", "expand_ratios")
    for name in lists:
        if len(config[name]) != stages:
            raise _fault(f"has {len(config[name])} stages, kernel_sizes {stages}", name)
    if not 0 < config["squeeze_expansion_ratio"] <= 1:
        raise _fault("must be above 0 and at most 1", "squeeze_expansion_ratio")
    hub.demand(
        config,
        "config.json",
        "vision_config",
        {
            "num_channels": [3],
            "hidden_act": ["swish", "silu"],
            "pooling_type": ["mean"],
            "depthwise_padding": [[]],
        },
    )
    if config["in_channels"][0] != 32:
        raise _fault("must begin with 32, the stem's width", "in_channels")
    for ratio, stride in zip(config["expand_ratios"], config["strides"], strict=True):
        if ratio == 1 and stride != 1:
            raise _fault("a stage of expand ratio 1 must have stride 1", "strides")


def _fault(problem: str, name: str) -> InputError:
    return hub.fault("config.json", problem, f"vision_config.{name}")


def text_config(encoder: TextEncoder) -> dict:
    """The ``text_config`` of a ``TextEncoder``."""
    backbone = encoder.backbone_config
    return {
        "model_type": "align_text_model",
        "vocab_size": backbone["vocabulary_size"],
        "hidden_size": backbone["hidden_dim"],
        "num_hidden_layers": backbone["num_layers"],
        "num_attention_heads": backbone["num_heads"],
        "intermediate_size": backbone["intermediate_dim"],
        "hidden_act": "gelu_new" if encoder.approximate_gelu else "gelu",
        "hidden_dropout_prob": backbone["dropout"],
        "attention_probs_dropout_prob": backbone["dropout"],
        "max_position_embeddings": backbone["max_sequence_length"],
        "type_vocab_size": backbone["num_segments"],
        "layer_norm_eps": 1e-12,
    }


def vision_config(encoder: ImageEncoder, image_size: int) -> dict:
    """The ``vision_config`` of an ``ImageEncoder``.

    Raises:
        ValueError: if the layout cannot express the tower.
    """
    backbone = encoder.backbone_config
    repeats = backbone["stackwise_num_repeats"]
    depth = backbone["stackwise_depth_coefficients"][0]
    scaled = [math.ceil(depth * count) for count in repeats]
    config = {
        "model_type": "align_vision_model",
        "image_size": image_size,
        "num_channels": 3,
        "width_coefficient": backbone["stackwise_width_coefficients"][0],
        "depth_coefficient": depth,
        "depth_divisor": backbone["depth_divisor"],
        "kernel_sizes": backbone["stackwise_kernel_sizes"],
        "in_channels": backbone["stackwise_input_filters"],
        "out_channels": backbone["stackwise_output_filters"],
        "depthwise_padding": [],
        "strides": backbone["stackwise_strides"],
        "num_block_repeats": repeats,
        "expand_ratios": backbone["stackwise_expansion_ratios"],
        "squeeze_expansion_ratio": backbone["stackwise_squeeze_and_excite_ratios"][0],
        "hidden_act": "swish",
        "hidden_dim": encoder.output_shape[-1],
        "pooling_type": "mean",
        "batch_norm_eps": backbone["batch_norm_epsilon"],
        "batch_norm_momentum": encoder.batch_norm_momentum,
        "drop_connect_rate": backbone["dropout"] * sum(scaled) / sum(repeats),
    }
    # The layout can express the tower if reading the configuration gives the same values.
    expected, _ = vision_arguments(config)
    for name, value in expected.items():
        if name in backbone and name != "dropout" and list_of(backbone[name]) != list_of(value):
            raise ValueError(
                f"the Hugging Face layout has no image tower with {name} {backbone[name]}; "
                "EfficientNet B0 to B7 and L2 have one"
            )
    return config


def list_of(value: Any) -> Any:
    """Tuples and tracked lists as plain lists; other values unchanged."""
    return list(value) if isinstance(value, list | tuple) else value
