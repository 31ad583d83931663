"""The parts of keras-hub's EfficientNet: its blocks, their layers and their connections."""

import contextlib
import math
import re

import keras

from align_keras import keras_internals

#: Maps names of layers to parts of a block. The layers of a "v1" block are layers of the model,
#: named after the block. A block of another kind is a single layer, with the parts as attributes.
_V1 = {
    "expand_conv": "expand_conv",
    "expand_bn": "expand_bn",
    "dwconv": "depthwise",
    "dwconv_bn": "depthwise_bn",
    "se_reduce": "se_reduce",
    "se_expand": "se_expand",
    "project": "project",
    "project_bn": "project_bn",
}
_SQUEEZE_AND_EXCITE = {"se_conv1": "se_reduce", "se_conv2": "se_expand"}
_EXPANSION = {"conv1": "expand_conv", "bn1": "expand_bn"}
_UNFUSED = {
    "depthwise": "depthwise",
    "bn2": "depthwise_bn",
    **_SQUEEZE_AND_EXCITE,
    "output_conv": "project",
    "bn3": "project_bn",
}
_FUSED = {
    **_EXPANSION,
    **_SQUEEZE_AND_EXCITE,
    "output_conv": "project",
    "bn2": "project_bn",
}


def blocks(encoder: keras.Model) -> list[dict[str, keras.layers.Layer]]:
    """The layers of each block by part, in order.

    Args:
        encoder: an ``ImageEncoder``, or an ``EfficientNetBackbone``.

    Returns:
        One dict per block with ``expand_conv``, ``expand_bn``, ``depthwise``, ``depthwise_bn``,
        ``se_reduce``, ``se_expand``, ``project`` and ``project_bn``, without the parts that the
        block lacks.
    """
    found: dict[str, dict[str, keras.layers.Layer]] = {}
    for layer in encoder.layers:
        match = re.fullmatch(r"(block\d+[a-z]_)(\w*)", layer.name)
        if match and not match[2]:
            found[match[1]] = {
                part: getattr(layer, name) for name, part in _attributes(layer).items()
            }
        elif match and match[2] in _V1:
            found.setdefault(match[1], {})[_V1[match[2]]] = layer
    return list(found.values())


def _attributes(block: keras.layers.Layer) -> dict[str, str]:
    """The parts of a block that is a single layer, by attribute name."""
    if not hasattr(block, "depthwise"):
        return _FUSED
    return _UNFUSED | (_EXPANSION if block.expand_ratio != 1 else {})


def normalized_convolutions(
    encoder: keras.Model,
) -> list[tuple[keras.layers.Layer, keras.layers.BatchNormalization]]:
    """Pairs of a convolution and the batch norm that alone uses the convolution's output."""
    names = {layer.name for layer in encoder.layers}
    pairs = [
        (encoder.get_layer(f"{part}_conv"), encoder.get_layer(f"{part}_bn"))
        for part in ("stem", "top")
        if f"{part}_bn" in names
    ]
    for block in blocks(encoder):
        for convolution, norm in (
            ("expand_conv", "expand_bn"),
            ("depthwise", "depthwise_bn"),
            ("project", "project_bn"),
        ):
            if convolution in block:
                pairs.append((block[convolution], block[norm]))
    return pairs


def has_first_block_residuals(encoder: keras.Model) -> bool:
    """Whether the first block of any stage has a residual."""
    return any(
        re.fullmatch(r"block\d+a_add", layer.name)
        or (
            re.fullmatch(r"block\d+a_", layer.name)
            and not layer.nores
            and layer.strides == 1
            and layer.input_filters == layer.output_filters
        )
        for layer in encoder.layers
    )


def policy_of(backbone: keras.Model) -> keras.DTypePolicy:
    """The precision policy of a backbone's layers: the global one when they were created."""
    return backbone.get_layer("stem_conv").dtype_policy


def rewire(
    backbone: keras.Model, first_block_residuals: bool, top_convolution: bool
) -> tuple[keras.Model, list[keras.KerasTensor]]:
    """Rebuilds a backbone from its own layers, with two changes in how they are connected.

    Args:
        backbone: an ``EfficientNetBackbone``.
        first_block_residuals: as in ``ImageEncoder``.
        top_convolution: whether to include the layers after the last block.

    Returns:
        The model, and a list of tensors: its input, and the outputs of its stem and of each block.
    """
    # keras-hub's stem pads both sides or, with these two arguments, none. The original pads at the
    # bottom and on the right. At odd sizes such as 289, the stride skips that padding.
    unpadded = backbone.stem_conv_padding == "valid" and not backbone.include_stem_padding
    stem_padding = keras.layers.ZeroPadding2D(
        ((0, 1), (0, 1)), dtype=policy_of(backbone), name="stem_padding"
    )
    # If the image size is left open, the padding changes no shape.
    same_shapes = backbone.input.shape[1:3] == (None, None)
    ends = {}

    def call_layer(layer, *args, **kwargs):
        if layer.name == "stem_conv" and unpadded:
            args = (stem_padding(args[0]), *args[1:])
        if not first_block_residuals and re.fullmatch(r"block\d+a_", layer.name):
            layer.nores = True
        if not first_block_residuals and re.fullmatch(r"block\d+a_add", layer.name):
            return args[0][0]  # of a "v1" block
        with keras_internals.output_known(layer) if same_shapes else contextlib.nullcontext():
            output = layer(*args, **kwargs)
        # The output of a block's last layer is the one that is kept.
        ends[re.match(r"[^_]*", layer.name)[0]] = output
        return output

    tower = keras.models.clone_model(
        keras.Model(
            backbone.input,
            backbone.output if top_convolution else backbone.get_layer("top_conv").input,
        ),
        clone_function=lambda layer: layer,
        call_function=call_layer,
    )
    outputs = [output for name, output in ends.items() if name.startswith(("stem", "block"))]
    return tower, [tower.input, *outputs]


def keras_hub_dropout(rate: float, depth_coefficient: float, repeats: list[int]) -> float:
    """The ``dropout`` for an ``EfficientNetBackbone`` whose last block should drop at ``rate``.

    keras-hub multiplies the rate by a block's index divided by the number of blocks *before* depth
    scaling. For L2, the rate would rise above 1.

    Args:
        rate: drop rate of the last block.
        depth_coefficient: factor for the number of blocks.
        repeats: blocks of each stage before scaling.
    """
    return rate * sum(repeats) / sum(math.ceil(depth_coefficient * count) for count in repeats)
