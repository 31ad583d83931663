"""Converts pixels or encoded images to the model's square crop: pure TensorFlow functions."""

import functools

import tensorflow as tf

from align_keras.preprocessing.decoding.decoder import decode_window

_WEIGHT_BITS = 22  # bits of Pillow's fixed-point weights
_LOW_BITS = 6  # lower part of these bits; its sums carry into the upper part
_BLOCK = 16  # rows of the result per matrix product


def resize(image: tf.Tensor, size: int, antialias: bool) -> tf.Tensor:
    """Stretches ``(height, width, 3)`` pixels to a square, bilinear.

    Args:
        image: uint8 pixels.
        size: side of the result, in pixels.
        antialias: if True, an image that shrinks is averaged exactly as in Pillow. If False, it is
            sampled as ``tf.image.resize`` does by default, in a fifth to a tenth of the time.

    Returns:
        uint8, ``(size, size, 3)``, rounded.
    """
    if antialias:
        return tf.ensure_shape(_traced_resize(size)(image), [size, size, 3])
    resized = tf.cast(tf.round(tf.image.resize(image, [size, size])), tf.uint8)
    return tf.ensure_shape(resized, [size, size, 3])


@functools.cache
def _traced_resize(size):
    """Pillow's resize of uint8 as one traced function; op by op it takes three times as long."""

    def resize(image):
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        rows = tf.reshape(image, [height, width * 3])

        def height_first():
            columns = _columns(_resample(rows, size), width)
            return _rows(_resample(columns, size), size)

        def width_first():
            columns = _columns(rows, width)
            return _resample(_rows(_resample(columns, size), height), size)

        # Pillow rounds after each direction, so their order matters. This is the order of Pillow
        # 13.
        taller, wider = height - size, width - size
        pixels = tf.cond((taller > 0) & (taller > 2 * wider), height_first, width_first)
        return tf.reshape(pixels, [size, size, 3])

    def resize_on_host(image):
        # A GPU may compute float32 matrix products in the lower precision of TF32.
        with tf.device("/device:CPU:0"):
            return resize(image)

    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    return tf.function(resize_on_host, input_signature=[spec], autograph=False)


def _columns(rows, width):
    """``(height, width * 3)`` to ``(width, 3 * height)``: matrices transpose fastest."""
    return tf.reshape(tf.transpose(rows), [width, 3 * tf.shape(rows)[0]])


def _rows(columns, height):
    """``(width, 3 * height)`` to ``(height, width * 3)``."""
    return tf.transpose(tf.reshape(columns, [-1, height]))


def _resample(rows, size):
    """Resamples the first axis as Pillow does, in fixed-point arithmetic; uint8 to uint8.

    Float32 represents integers of up to 24 bits exactly. Pillow's weights have 22 bits and pixels
    have 8, so the weights are split into two parts.
    """
    # Sums of the lower bits reach 2 ** 24 at 1,044 taps.
    fits = tf.shape(rows)[0] <= 500 * size
    return tf.cond(
        fits,
        lambda: _resample_exactly(rows, size, tf.float32),
        lambda: _resample_exactly(rows, size, tf.float64),
    )


def _resample_exactly(rows, size, dtype):
    weights, starts = _block_weights(tf.shape(rows)[0], size)
    low = tf.bitwise.bitwise_and(weights, (1 << _LOW_BITS) - 1)
    high = tf.bitwise.right_shift(weights, _LOW_BITS)
    low = tf.cast(low, dtype) * 2.0**-_LOW_BITS
    high = tf.cast(high, dtype) * 2.0 ** (_LOW_BITS - _WEIGHT_BITS)
    parts, reach = tf.concat([low, high], axis=1), tf.shape(weights)[2]

    def resample(block):
        start = starts[block]
        sums = tf.matmul(parts[block], tf.cast(rows[start : start + reach], dtype))
        carries = tf.floor(sums[:_BLOCK]) * 2.0 ** (_LOW_BITS - _WEIGHT_BITS)
        return tf.cast(carries + (sums[_BLOCK:] + 0.5), tf.uint8)

    # Block by block, so that the data of a block stays in a core's cache.
    spec = tf.TensorSpec([_BLOCK, None], tf.uint8)
    blocks = tf.map_fn(resample, tf.range(starts.shape[0]), fn_output_signature=spec)
    return tf.reshape(blocks, [-1, tf.shape(rows)[1]])[:size]


def _block_weights(height, size):
    """Pillow's weights as matrices, each of which computes some rows of the result.

    Returns:
        Weights, int32, ``(blocks, rows, reach)``, and the first input row of each block.
    """
    scale = tf.cast(height, tf.float64) / size
    support = tf.maximum(scale, 1.0)
    places = tf.reshape(tf.range(-(-size // _BLOCK) * _BLOCK), [-1, _BLOCK])
    centres = (tf.cast(tf.minimum(places, size - 1), tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centres - support + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(centres + support + 0.5, tf.int32), height)
    reach = tf.reduce_max(end[:, -1] - first[:, 0])
    starts = tf.minimum(first[:, 0], height - reach)
    rows = (starts[:, None] + tf.range(reach))[:, None, :]
    distances = tf.abs(tf.cast(rows, tf.float64) - centres[:, :, None] + 0.5) / support
    inside = (rows >= first[:, :, None]) & (rows < end[:, :, None])
    weights = tf.where(inside, tf.maximum(1.0 - distances, 0.0), 0.0)
    weights /= tf.reduce_sum(weights, axis=2, keepdims=True)
    return tf.cast(weights * (1 << _WEIGHT_BITS) + 0.5, tf.int32), starts


def centre_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """The central ``(size, size, 3)`` part of a square image."""
    offset = (image.shape[0] - size) // 2
    return image[offset : offset + size, offset : offset + size]


def flip(image: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Mirrors ``(height, width, 3)`` pixels left to right if ``flipped``, a bool, is true."""
    # Reverses axis 1 or no axis: `tf.where` on both versions would take as long as decoding.
    return tf.reverse(image, tf.range(1, 1 + tf.cast(flipped, tf.int32)))


def decode_resized_crop(
    encoded: tf.Tensor,
    offset: tf.Tensor,
    crop_size: int,
    resize_size: int,
    antialias: bool,
    upright: bool = True,
) -> tf.Tensor:
    """Decodes an image, stretches it to a square and crops it, in one step.

    The window is mapped back to whole pixels of the file. Only that part of a JPEG is decoded, and
    one resize serves both steps.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP, a scalar string.
        offset: y and x of the window in the stretched image, int32, ``(2,)``.
        crop_size: side of the window, in pixels.
        resize_size: side of the stretched image, in pixels.
        antialias: as for ``resize``.
        upright: as for ``decoder.decode``.

    Returns:
        uint8, ``(crop_size, crop_size, 3)``.

    Raises:
        tf.errors.InvalidArgumentError: as for ``decoder.decode``.
    """

    def window(shape):
        scale = tf.cast(shape[:2], tf.float32) / float(resize_size)
        start = tf.cast(tf.cast(offset, tf.float32) * scale, tf.int32)
        extent = tf.cast(tf.math.ceil(float(crop_size) * scale), tf.int32)
        return tf.concat([start, tf.minimum(extent, shape[:2] - start)], axis=0)

    return resize(decode_window(encoded, window, upright), crop_size, antialias)


def decode_random_area(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    size: int,
    min_area: float,
    antialias: bool,
    upright: bool = True,
) -> tf.Tensor:
    """Decodes an image, crops a window of random area and shape, and stretches it to a square.

    As in Szegedy et al., 2015 ("Going deeper with convolutions"), aspect ratios are from 3 : 4 to 4
    : 3. If none of a hundred random windows fits, as in a panorama, the window is the entire image.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP, a scalar string.
        seed: two integers, which alone determine the window.
        size: side of the square, in pixels.
        min_area: minimum fraction of the image's area that the window covers, above 0 and at most
            1.
        antialias: as for ``resize``.
        upright: as for ``decoder.decode``.

    Returns:
        uint8, ``(size, size, 3)``.

    Raises:
        tf.errors.InvalidArgumentError: as for ``decoder.decode``.
    """

    def window(shape):
        start, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.zeros([1, 0, 4]),
            seed,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(min_area, 1.0),
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([start[:2], extent[:2]], axis=0)

    return resize(decode_window(encoded, window, upright), size, antialias)
