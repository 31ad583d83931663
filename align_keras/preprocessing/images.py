"""From encoded images or pixels to the model's square crop: pure functions in TensorFlow ops."""

import functools

import tensorflow as tf

#: Larger images count as corrupt: a PNG of a megabyte can decode to gigabytes.
MAX_PIXELS = 1 << 26
_WEIGHT_BITS = 22  # of Pillow's fixed-point weights
_BIG_ENDIAN = [1 << 24, 1 << 16, 1 << 8, 1]
_LITTLE_ENDIAN = _BIG_ENDIAN[::-1]


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a whole image.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP, a scalar string.

    Returns:
        uint8, ``(height, width, 3)``.

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are no image, or one of over
            ``MAX_PIXELS``.
    """
    return _decode_checked(
        encoded,
        # As accurate as libjpeg's users elsewhere have it; TensorFlow's default is not.
        lambda encoded, _: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        _decode_other,
    )


def resize(image: tf.Tensor, size: int, antialias: bool) -> tf.Tensor:
    """Stretches ``(height, width, 3)`` pixels to a square, bilinear.

    Args:
        image: uint8.
        size: pixels.
        antialias: whether an image made smaller is averaged, exactly as Pillow does, or sampled,
            as ``tf.image.resize`` does by itself, in a fifth to a tenth of the time.

    Returns:
        float32, ``(size, size, 3)``, 0 .. 255.
    """
    if not antialias:
        return tf.ensure_shape(tf.image.resize(image, [size, size]), [size, size, 3])
    image = _traced_resize(size)(image)
    return tf.cast(tf.ensure_shape(image, [size, size, 3]), tf.float32)


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
    encoded: tf.Tensor, offset: tf.Tensor, crop_size: int, resize_size: int, antialias: bool
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

    Returns:
        float32, ``(crop_size, crop_size, 3)``, 0 .. 255.

    Raises:
        tf.errors.InvalidArgumentError: as ``decode``.
    """

    def window(shape):
        scale = tf.cast(shape[:2], tf.float32) / float(resize_size)
        start = tf.cast(tf.cast(offset, tf.float32) * scale, tf.int32)
        extent = tf.cast(tf.math.ceil(float(crop_size) * scale), tf.int32)
        return tf.concat([start, tf.minimum(extent, shape[:2] - start)], axis=0)

    return resize(_decode_window(encoded, window), crop_size, antialias)


def decode_random_area(
    encoded: tf.Tensor, seed: tf.Tensor, size: int, min_area: float, antialias: bool
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

    Returns:
        float32, ``(size, size, 3)``, 0 .. 255.

    Raises:
        tf.errors.InvalidArgumentError: as ``decode``.
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

    return resize(_decode_window(encoded, window), size, antialias)


def _decode_window(encoded, window):
    """Decodes the part of an image that ``window(shape)`` names: y, x, height, width, int32.

    A JPEG is decoded there alone.
    """

    def jpeg(encoded, shape):
        return tf.image.decode_and_crop_jpeg(
            encoded, window(shape), channels=3, dct_method="INTEGER_ACCURATE"
        )

    def other(encoded):
        image = _decode_other(encoded)
        y, x, height, width = tf.unstack(window(tf.shape(image)))
        return image[y : y + height, x : x + width]

    return _decode_checked(encoded, jpeg, other)


def _decode_other(encoded):
    return tf.image.decode_image(encoded, channels=3, expand_animations=False)


def _decode_checked(encoded, jpeg, other):
    """Decodes once the header is known to name no more than ``MAX_PIXELS``.

    Args:
        encoded: the bytes of an image, a scalar string.
        jpeg: called with them and the shape in the header where they are a JPEG.
        other: called with them otherwise.

    Raises:
        tf.errors.InvalidArgumentError: if there are too many pixels, before anything decodes.
    """

    def checked(pixels):
        check = tf.debugging.assert_less_equal(
            pixels, tf.constant(MAX_PIXELS, tf.int64), "the image has too many pixels"
        )
        with tf.control_dependencies([check]):
            return tf.identity(encoded)

    def checked_jpeg():
        # Each kernel takes its share of a small image's time, so the header is read once.
        shape = tf.image.extract_jpeg_shape(encoded)
        return jpeg(checked(tf.reduce_prod(tf.cast(shape[:2], tf.int64))), shape)

    is_jpeg = tf.strings.substr(encoded, 0, 2) == b"\xff\xd8"
    return tf.cond(is_jpeg, checked_jpeg, lambda: other(checked(_pixels_named(encoded))))


def _pixels_named(encoded):
    """The pixels that the header of a PNG, GIF or WebP names, int64; 0 for another kind."""

    def number(start, weights):
        octets = tf.io.decode_raw(tf.strings.substr(encoded, start, len(weights)), tf.uint8)
        return tf.reduce_sum(tf.cast(octets, tf.int64) * weights)

    def webp():
        """Three kinds: extended, lossless (two numbers of 14 bits) and lossy."""
        kind, low, bits = tf.strings.substr(encoded, 12, 4), 1 << 14, number(21, _LITTLE_ENDIAN)
        extended = (number(24, _LITTLE_ENDIAN[:3]) + 1) * (number(27, _LITTLE_ENDIAN[:3]) + 1)
        lossless = (bits % low + 1) * (bits // low % low + 1)
        lossy = (number(26, [1, 256]) % low) * (number(28, [1, 256]) % low)
        return tf.where(kind == b"VP8X", extended, tf.where(kind == b"VP8L", lossless, lossy))

    def starts_with(mark):
        return tf.strings.substr(encoded, 0, len(mark)) == mark

    return tf.case(
        [
            (starts_with(b"\x89PNG"), lambda: number(16, _BIG_ENDIAN) * number(20, _BIG_ENDIAN)),
            (starts_with(b"GIF"), lambda: number(6, [1, 256]) * number(8, [1, 256])),
            (starts_with(b"RIFF"), webp),
        ],
        # A BMP is as long as it is large.
        default=lambda: tf.constant(0, tf.int64),
    )
