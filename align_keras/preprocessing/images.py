"""From pixels, or encoded images, to the model's square crop: pure functions in TensorFlow ops."""

import functools

import tensorflow as tf

from align_keras.preprocessing.decoding.decoder import decode_window

_WEIGHT_BITS = 22  # of Pillow's fixed-point weights


def resize(image: tf.Tensor, size: int, antialias: bool) -> tf.Tensor:
    """Stretches ``(height, width, 3)`` pixels to a square, bilinear.

    Args:
        image: uint8.
        size: pixels.
        antialias: whether an image made smaller is averaged, exactly as Pillow does, or sampled,
            as ``tf.image.resize`` does by itself, in a fifth to a tenth of the time.

    Returns:
        uint8, ``(size, size, 3)``, rounded.
    """
    if antialias:
        return tf.ensure_shape(_traced_resize(size)(image), [size, size, 3])
    resized = tf.cast(tf.round(tf.image.resize(image, [size, size])), tf.uint8)
    return tf.ensure_shape(resized, [size, size, 3])


@functools.cache
def _traced_resize(size):
    """Pillow's resize of uint8 as one function: op by op it takes three times as long."""

    def resize(image):
        taller, wider = tf.shape(image)[0] - size, tf.shape(image)[1] - size
        # Pillow rounds after each direction, so their order counts; this is the order of
        # Pillow 13.
        return tf.cond(
            (taller > 0) & (taller > 2 * wider),
            lambda: _swap(_resize_height(_swap(_resize_height(image, size)), size)),
            lambda: _resize_height(_swap(_resize_height(_swap(image), size)), size),
        )

    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    return tf.function(resize, input_signature=[spec], autograph=False)


def _swap(image):
    return tf.transpose(image, [1, 0, 2])


def _resize_height(image, size):
    """Pillow's resampling of one direction, in its fixed-point arithmetic: uint8 to uint8."""
    height = tf.shape(image)[0]
    scale = tf.cast(height, tf.float64) / size
    reach = tf.maximum(scale, 1.0)
    centres = (tf.range(size, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centres - reach + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(centres + reach + 0.5, tf.int32), height)
    taps = 2 * tf.cast(tf.math.ceil(reach), tf.int32) + 1
    rows = first[:, None] + tf.range(taps)
    distances = tf.abs(tf.cast(rows, tf.float64) - centres[:, None] + 0.5) / reach
    weights = tf.where(rows < end[:, None], tf.maximum(1.0 - distances, 0.0), 0.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.cast(weights * (1 << _WEIGHT_BITS) + 0.5, tf.int32)
    rows = tf.minimum(rows, height - 1)

    def add(tap, total):
        # One tap at a time: all together would take gigabytes for a large photograph.
        row = tf.cast(tf.gather(image, rows[:, tap]), tf.int32)
        return tap + 1, total + row * weights[:, tap, None, None]

    half = tf.fill(tf.concat([[size], tf.shape(image)[1:]], 0), 1 << (_WEIGHT_BITS - 1))
    _, total = tf.while_loop(
        lambda tap, total: tap < taps,
        add,
        [0, half],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape([size, None, None])],
    )
    return tf.cast(tf.bitwise.right_shift(total, _WEIGHT_BITS), tf.uint8)


def centre_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts the centre out of a square image: ``(size, size, 3)``."""
    offset = (image.shape[0] - size) // 2
    return image[offset : offset + size, offset : offset + size]


def flip(image: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Mirrors ``(height, width, 3)`` pixels left to right where ``flipped``, a bool, is true."""
    # Of axis 1 or of none: `tf.where` of both would take as long as decoding.
    return tf.reverse(image, tf.range(1, 1 + tf.cast(flipped, tf.int32)))


def decode_resized_crop(
    encoded: tf.Tensor,
    offset: tf.Tensor,
    crop_size: int,
    resize_size: int,
    antialias: bool,
    upright: bool = True,
) -> tf.Tensor:
    """Decodes an image, stretches it to a square and cuts a window out, in one go.

    The window is mapped back onto the file's own pixels, whole ones: a JPEG is decoded there
    alone, and one resize serves both steps.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP, a scalar string.
        offset: y and x of the window in the stretched image, int32, ``(2,)``.
        crop_size: the window, pixels.
        resize_size: the stretched image, pixels.
        antialias: as for ``resize``.
        upright: as for ``decoder.decode``.

    Returns:
        uint8, ``(crop_size, crop_size, 3)``.

    Raises:
        tf.errors.InvalidArgumentError: as ``decoder.decode``.
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
    """Decodes an image, cuts a window of random area and shape out and stretches it to a square.

    As Szegedy et al., 2015 ("Going deeper with convolutions"): sides of 3 : 4 to 4 : 3. Where a
    hundred draws fit into no such window, as in a panorama, it is the whole image.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP, a scalar string.
        seed: two integers, which alone decide the window.
        size: of the square, pixels.
        min_area: the least share of the image that the window covers, above 0 to 1.
        antialias: as for ``resize``.
        upright: as for ``decoder.decode``.

    Returns:
        uint8, ``(size, size, 3)``.

    Raises:
        tf.errors.InvalidArgumentError: as ``decoder.decode``.
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
