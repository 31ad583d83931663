"""Sizes of towers for tests; they are tiny because tracing takes most of a short run."""

from align_keras.models import presets

#: Arguments of a keras-hub EfficientNetBackbone with one block that has all parts: an expansion,
#: squeeze-and-excitation and a residual.
TINY_EFFICIENTNET = {
    "stackwise_width_coefficients": [1.0],
    "stackwise_depth_coefficients": [1.0],
    "stackwise_kernel_sizes": [3],
    "stackwise_num_repeats": [1],
    "stackwise_input_filters": [16],
    "stackwise_output_filters": [16],
    "stackwise_expansion_ratios": [2],
    "stackwise_strides": [1],
    "stackwise_squeeze_and_excite_ratios": [0.25],
    "stackwise_block_types": ["v1"],
    "stackwise_force_input_filters": [0],
    "stackwise_nores_option": [False],
}


#: The same with three blocks of two types, for tests that need several: without an expansion,
#: without a residual, and with both.
THREE_BLOCKS = TINY_EFFICIENTNET | {
    "stackwise_width_coefficients": [1.0] * 2,
    "stackwise_depth_coefficients": [1.0] * 2,
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [8, 8],
    "stackwise_output_filters": [8, 16],
    "stackwise_expansion_ratios": [1, 2],
    "stackwise_strides": [1, 2],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
    "stackwise_block_types": ["v1", "unfused"],
    "stackwise_force_input_filters": [0, 0],
    "stackwise_nores_option": [False, False],
}


def add_tiny_preset(patch):
    """Adds a size ``tiny`` to those of ``pretrain.py``; ``patch`` is a ``monkeypatch``."""
    scale = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "dropout": 0.1}
    tower = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
    tables = {
        "IMAGE_ENCODERS": TINY_EFFICIENTNET | scale,
        "TEXT_ENCODERS": tower | {"dropout": 0.1},
        "PRESETS": presets.PRESETS["align_nano_tiny"]
        | {"image_encoder": "tiny", "text_encoder": "tiny", "projection_dim": 8},
    }
    for table, size in tables.items():
        patch.setitem(getattr(presets, table), "tiny", size)
