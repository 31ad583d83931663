"""The named sizes, as plain data: image size first, then text size.

A preset says how large each tower is and what it reads; ``build_backbone`` in
``align_keras.models.backbone`` turns one into a model. Nothing branches on these names.

Sources are the sections of the paper (Jia et al., 2021). The paper does not give
BERT-Mini's dimensions; those here are the ones of the published BERT-Mini.
"""

from align_keras.wording import choose

# EfficientNet-B0's seven stages (Tan and Le, 2019); each size scales width and depth. "v1" for
# the first stage, whose blocks do not expand: keras-hub's "unfused" would project with 3 x 3
# there; the later stages' "unfused" pads "same", as the original does. ``ImageEncoder`` pads the
# stem.
_EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
    "stackwise_block_types": ["v1"] + ["unfused"] * 6,
    "include_stem_padding": False,
    "stem_conv_padding": "valid",
    # The original never rounds a width down by more than a tenth: matters for B3's 19.2.
    "cap_round_filter_decrease": True,
    "batch_norm_epsilon": 1e-3,
    # Drop-connect of the last block; earlier ones have less.
    "dropout": 0.2,
}

# Four stages of EfficientNetV2's fused blocks, for images of 64 pixels on a CPU: plain 3 x 3
# convolutions and early strides keep the time out of depthwise convolutions, batch norm and
# activations, where the scaled-down B0 spends it (recipes/README.md has the figures).
_EFFICIENTNET_NANO = {
    "stackwise_kernel_sizes": [3, 3, 3, 3],
    "stackwise_num_repeats": [1, 1, 1, 2],
    "stackwise_input_filters": [16, 32, 64, 128],
    "stackwise_output_filters": [32, 64, 128, 192],
    "stackwise_expansion_ratios": [1, 2, 2, 2],
    "stackwise_strides": [2, 2, 2, 2],
    "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0.25],
    "stackwise_block_types": ["fused"] * 4,
    "stackwise_force_input_filters": [0] * 4,
    "stackwise_nores_option": [False] * 4,
    "include_stem_padding": True,
    "stem_conv_padding": "valid",
    "batch_norm_epsilon": 1e-3,
}

#: Arguments of ``keras_hub.models.EfficientNetBackbone``.
IMAGE_ENCODERS = {
    "efficientnet_nano": {
        **_EFFICIENTNET_NANO,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "dropout": 0.0,
    },
    # Width and depth: Tan and Le, 2019; L2: Xie et al., 2020.
    "efficientnet_b0": {**_EFFICIENTNET, "width_coefficient": 1.0, "depth_coefficient": 1.0},
    "efficientnet_b1": {**_EFFICIENTNET, "width_coefficient": 1.0, "depth_coefficient": 1.1},
    "efficientnet_b2": {**_EFFICIENTNET, "width_coefficient": 1.1, "depth_coefficient": 1.2},
    "efficientnet_b3": {**_EFFICIENTNET, "width_coefficient": 1.2, "depth_coefficient": 1.4},
    "efficientnet_b4": {**_EFFICIENTNET, "width_coefficient": 1.4, "depth_coefficient": 1.8},
    "efficientnet_b5": {**_EFFICIENTNET, "width_coefficient": 1.6, "depth_coefficient": 2.2},
    "efficientnet_b6": {**_EFFICIENTNET, "width_coefficient": 1.8, "depth_coefficient": 2.6},
    "efficientnet_b7": {**_EFFICIENTNET, "width_coefficient": 2.0, "depth_coefficient": 3.1},
    "efficientnet_l2": {**_EFFICIENTNET, "width_coefficient": 4.3, "depth_coefficient": 5.3},
}

#: Arguments of ``keras_hub.models.BertBackbone``, less the vocabulary's size.
TEXT_ENCODERS = {
    "bert_tiny": {
        "num_layers": 2,
        "hidden_dim": 128,
        "num_heads": 2,
        "intermediate_dim": 512,
        "dropout": 0.1,
    },
    "bert_mini": {
        "num_layers": 4,
        "hidden_dim": 256,
        "num_heads": 4,
        "intermediate_dim": 1024,
        "dropout": 0.1,
    },
    "bert_small": {
        "num_layers": 4,
        "hidden_dim": 512,
        "num_heads": 8,
        "intermediate_dim": 2048,
        "dropout": 0.1,
    },
    "bert_medium": {
        "num_layers": 8,
        "hidden_dim": 512,
        "num_heads": 8,
        "intermediate_dim": 2048,
        "dropout": 0.1,
    },
    "bert_base": {
        "num_layers": 12,
        "hidden_dim": 768,
        "num_heads": 12,
        "intermediate_dim": 3072,
        "dropout": 0.1,
    },
    "bert_large": {
        "num_layers": 24,
        "hidden_dim": 1024,
        "num_heads": 16,
        "intermediate_dim": 4096,
        "dropout": 0.1,
    },
}

#: Two towers and what joins them. ``sequence_length`` is the most word pieces, [CLS] and [SEP]
#: included; ``vocabulary_size`` that of the paper's own vocabulary.
PRESETS = {
    # Sec. 5: the headline model.
    "align_l2_large": {
        "image_encoder": "efficientnet_l2",
        "text_encoder": "bert_large",
        "projection_dim": 1376,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    },
    # Sec. 6.1: the ablations' largest pair short of the headline's; also the public weights'.
    "align_b7_base": {
        "image_encoder": "efficientnet_b7",
        "text_encoder": "bert_base",
        "projection_dim": 640,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    },
    # Sec. 6.1: the ablations of width, negatives and temperature.
    "align_b5_base": {
        "image_encoder": "efficientnet_b5",
        "text_encoder": "bert_base",
        "projection_dim": 640,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    },
    # The paper's CC3M ablation's model.
    "align_b3_mini": {
        "image_encoder": "efficientnet_b3",
        "text_encoder": "bert_mini",
        "projection_dim": 640,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    },
    # Not in the paper: trains on two CPU cores in minutes.
    "align_nano_tiny": {
        "image_encoder": "efficientnet_nano",
        "text_encoder": "bert_tiny",
        "projection_dim": 192,
        "sequence_length": 24,
        "vocabulary_size": 8_000,
    },
}


def find(sizes: dict[str, dict], name: str, kind: str) -> dict:
    """The entry of a table above; a ValueError that lists the names if it has no such one."""
    if name not in sizes:
        raise ValueError(f"unknown {kind} {name!r}; {choose(name, sorted(sizes))}")
    return sizes[name]
