"""EfficientNet's first stages on images cut into chunks of columns: space to batch.

A TPU stores activations in tiles of 128 lanes. With 16 images per core the channels lie in the
lanes. The first stages have only 24 to 40 channels, so most of what they read and write is padding.
Eight chunks per image make a batch of 128, which fills the lanes. Convolutions of one pixel, batch
norm and activations give the same results on chunks. A depthwise convolution also needs columns of
the neighbouring chunks, which are copied before the block's expansion. Squeeze and excite needs the
mean over all chunks of an image, and drop-connect needs one draw per image.
``benchmarks/README.md`` has the bytes before and after.

A batch of chunks is ordered by chunk, then by image: neighbouring chunks are ``images`` rows apart.
"""

import re

import keras
import numpy as np
import tensorflow as tf

from align_keras.models import efficientnet

_LANES = 128


def count_chunks(stem: keras.Model, block: keras.Model, images: tf.Tensor) -> int:
    """The number of chunks of an image that fill the lanes; 1 if the image cannot be cut.

    The second stage halves the columns, so each chunk has an even number of them.

    Args:
        stem: the part of the tower before its first block.
        block: the first block.
        images: ``(batch, height, width, 3)``.
    """
    convolution = stem.get_layer("stem_conv")
    if None in images.shape or convolution.padding != "valid":
        return 1
    (_, _), (left, right) = _padding(stem)
    width = left + images.shape[2] + right
    columns = (width - convolution.kernel_size[1]) // convolution.strides[1] + 1
    most = max(1, _LANES // images.shape[0])
    counts = [count for count in range(2, most + 1) if columns % (2 * count) == 0]
    return max((count for count in counts if can_cut(block, columns // count)), default=1)


def _padding(stem):
    """The padding of the stem: ``((top, bottom), (left, right))``."""
    layers = [layer for layer in stem.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
    return layers[0].padding if layers else ((0, 0), (0, 0))


def call_stem(stem: keras.Model, images: tf.Tensor, chunks: int) -> tf.Tensor:
    """The output of the stem in training mode, as chunks.

    Args:
        stem: the part of the tower before its first block.
        images: ``(batch, height, width, 3)``.
        chunks: number of chunks per image.

    Returns:
        ``(chunks * batch, height, columns, channels)``.
    """
    convolution = stem.get_layer("stem_conv")
    (top, bottom), (left, right) = _padding(stem)
    images = tf.cast(images, convolution.compute_dtype)
    images = tf.pad(images, [[0, 0], [top, bottom], [left, right], [0, 0]])
    kernel, stride = convolution.kernel_size[1], convolution.strides[1]
    columns = ((images.shape[2] - kernel) // stride + 1) // chunks
    starts = range(0, chunks * columns * stride, columns * stride)
    width = (columns - 1) * stride + kernel
    features = tf.concat([images[:, :, start : start + width] for start in starts], axis=0)
    features = stem.get_layer("stem_bn")(convolution(features), training=True)
    return stem.get_layer("stem_activation")(features)


def can_cut(block: keras.Model, columns: int) -> bool:
    """Whether a block can run on chunks with this number of columns.

    The number of columns must be divisible by the stride, and the kernel may reach only into the
    neighbouring chunks.

    Args:
        block: the part of the tower that forms the block.
        columns: columns per chunk of the block's input.
    """
    (layers,) = efficientnet.blocks(block)
    if "depthwise" not in layers or _named(block, "projection_activation"):
        return False
    layer = layers["depthwise"]
    stride = layer.strides[1]
    # keras-hub's "v1" pads both sides equally, which differs from "same" if there is a stride.
    same = stride == 1 or layer.padding == "same"
    return same and columns % stride == 0 and layer.kernel_size[1] // 2 <= columns


def call_block(
    block: keras.Model, features: tf.Tensor, chunks: int, training: bool = True
) -> tf.Tensor:
    """The output of a block on chunks.

    Args:
        block: the part of the tower that forms the block; ``can_cut`` must be true for it.
        features: input of the block, ``(chunks * images, height, columns, channels)``.
        chunks: number of chunks per image.
        training: the mode of batch norm and drop-connect.

    Returns:
        ``(chunks * images, height, columns, channels)``.
    """
    (layers,) = efficientnet.blocks(block)
    activation, drop, has_residual = _others(block)
    inputs = features
    rows, left, right = _depthwise_padding(layers["depthwise"], features, chunks)
    # Before the expansion, a column has a sixth of the channels, so less is copied. Batch norm,
    # activation and depthwise convolution then also follow each other directly and can be fused.
    features = _with_neighbours(features, features.shape[0] // chunks, left, right)
    if "expand_conv" in layers:
        features = layers["expand_conv"](features)
        features = layers["expand_bn"].call_with_borders(features, left, right, training)
        features = _zero_outside(activation(features), chunks, left, right)
    features = _depthwise(layers["depthwise"], features, rows)
    features = activation(layers["depthwise_bn"](features, training=training))
    if "se_reduce" in layers:
        gate = layers["se_expand"](layers["se_reduce"](_means(features, chunks)))
        features *= tf.tile(gate, [chunks, 1, 1, 1])
    features = layers["project_bn"](layers["project"](features), training=training)
    if drop is not None:
        # One draw for the entire image, since the noise has one number per image.
        images = features.shape[0] // chunks
        kept = drop(tf.ones([images, 1, 1, 1], features.dtype), training=training)
        features *= tf.tile(kept, [chunks, 1, 1, 1])
    return features + inputs if has_residual else features


def _others(block):
    """A block's activation, its drop-connect or None, and whether it has a residual."""
    layer = block.layers[-1]
    if re.fullmatch(r"block\d+[a-z]_", layer.name):
        residual = layer.strides == 1 and layer.input_filters == layer.output_filters
        residual = residual and not layer.nores
        return layer.act, layer.dropout_layer if residual and layer.dropout else None, residual
    return _named(block, "dwconv_activation"), _named(block, "drop"), bool(_named(block, "add"))


def _named(block, part):
    """The layer of a "v1" block for ``part``; None if there is none."""
    found = (one for one in block.layers if re.fullmatch(rf"block\d+[a-z]_{part}", one.name))
    return next(found, None)


def _depthwise_padding(layer, features, chunks):
    """The padding of a depthwise convolution over entire images: ``((top, bottom), left, right)``.

    Both block types of keras-hub pad "same".
    """
    (height, width), stride = features.shape[1:3], layer.strides[1]
    rows, (left, right) = (
        _same(size, kernel, stride)
        for size, kernel in zip((height, chunks * width), layer.kernel_size, strict=True)
    )
    return rows, left, right


def _depthwise(layer, features, rows):
    """A depthwise convolution on chunks that have the columns of their neighbours."""
    kernel = tf.cast(tf.convert_to_tensor(layer.kernel), features.dtype)
    strides = [1, *layer.strides, 1]
    with tf.name_scope(layer.name):
        return tf.nn.depthwise_conv2d(features, kernel, strides, [[0, 0], rows, [0, 0], [0, 0]])


def _same(size, kernel, stride):
    """The padding of "same" on both sides."""
    padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return padding // 2, padding - padding // 2


def _with_neighbours(features, images, left, right):
    """Chunks with the nearest columns of their neighbours, or zeros at an image's edge."""
    columns = [features]
    if left:
        last = features[:, :, -left:]
        columns.insert(0, tf.concat([tf.zeros_like(last[:images]), last[:-images]], axis=0))
    if right:
        first = features[:, :, :right]
        columns.append(tf.concat([first[images:], tf.zeros_like(first[:images])], axis=0))
    return tf.concat(columns, axis=2)


def _zero_outside(features, chunks, left, right):
    """Chunks whose columns beyond the edges of an image are zero, as a convolution pads them."""
    batch, _, columns, _ = features.shape
    inside = np.ones([chunks, columns])
    inside[0, :left] = inside[-1, columns - right :] = 0.0
    inside = np.repeat(inside, batch // chunks, axis=0)[:, None, :, None]
    return features * tf.constant(inside, features.dtype)


def _means(features, chunks):
    """The mean of each channel over an image, ``(images, 1, 1, channels)``."""
    means = tf.reduce_mean(tf.cast(features, tf.float32), axis=[1, 2])
    means = tf.reduce_mean(tf.reshape(means, [chunks, -1, means.shape[-1]]), axis=0)
    return tf.cast(means[:, None, None, :], features.dtype)


def join(features: tf.Tensor, chunks: int) -> tf.Tensor:
    """Joins chunks to images, ``(images, height, width, channels)``."""
    batch, height, columns, channels = features.shape
    features = tf.reshape(features, [chunks, batch // chunks, height, columns, channels])
    features = tf.transpose(features, [1, 2, 0, 3, 4])
    return tf.reshape(features, [batch // chunks, height, chunks * columns, channels])
