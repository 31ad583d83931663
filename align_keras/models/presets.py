"""The named sizes, as plain data: image size first, then text size.

A preset states the size of each tower and of its input. ``build_backbone`` in
``align_keras.models.backbone`` turns it into a model. No code branches on these names.

The sections in the comments are those of the paper (Jia et al., 2021). The paper does not state the
dimensions of BERT-Mini; those below are from the published BERT-Mini.
"""

from align_keras.wording import choose

# EfficientNet-B0's seven stages (Tan and Le, 2019); each size scales width and depth. The first
# stage uses "v1", since its blocks do not expand and keras-hub's "unfused" would project with 3 x 3
# there. The other stages use "unfused", which pads "same" like the original. ``ImageEncoder`` pads
# the stem.
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
    # The original never rounds a width down by more than a tenth. This matters for B3's 19.2.
    "cap_round_filter_decrease": True,
    "batch_norm_epsilon": 1e-3,
    # Drop-connect rate of the last block; earlier blocks have lower rates.
    "dropout": 0.2,
}

# Four stages of EfficientNetV2's fused blocks, for images of 64 pixels on a CPU. With plain 3 x 3
# convolutions and early strides, depthwise convolutions, batch norm and activations take little
# time. In a scaled-down B0 they take most of it (figures in recipes/README.md).
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
    # Width and depth of B0 to B7 from Tan and Le, 2019; of L2 from Xie et al., 2020.
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

#: Arguments of ``keras_hub.models.BertBackbone``, without the vocabulary size.
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

#: Two towers and the width of their shared space. ``sequence_length`` is the maximum number of word
#: pieces, including [CLS] and [SEP]. ``vocabulary_size`` is that of the paper's vocabulary.
PRESETS = {
    # Sec. 5: the main model.
    "align_l2_large": {
        "image_encoder": "efficientnet_l2",
        "text_encoder": "bert_large",
        "projection_dim": 1376,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    },
    # Sec. 6.1: the largest pair of towers in the ablations besides the main model. The public
    # weights have this size too.
    "align_b7_base": {
        "image_encoder": "efficientnet_b7",
        "text_encoder": "bert_base",
        "projection_dim": 640,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    },
    # Sec. 6.1: the ablations of embedding width, negatives and temperature.
    "align_b5_base": {
        "image_encoder": "efficientnet_b5",
        "text_encoder": "bert_base",
        "projection_dim": 640,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    },
    # The model of the paper's CC3M ablation.
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
    """An entry of a table above; raises a ValueError that lists the names if it does not exist."""
    if name not in sizes:
        raise ValueError(f"unknown {kind} {name!r}; {choose(name, sorted(sizes))}")
    return sizes[name]
