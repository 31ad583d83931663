"""Reads bytes of encoded images with TensorFlow ops. Reading past the end gives nothing."""

from collections.abc import Callable

import tensorflow as tf

# More parts than programs write before an image. A file without an image must not take minutes.
MAX_STEPS = 4096


def part(data: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int) -> tf.Tensor:
    """A part of a string; shorter or empty if the string ends early."""
    start = tf.minimum(tf.cast(start, tf.int64), tf.cast(tf.strings.length(data), tf.int64))
    return tf.strings.substr(data, start, tf.maximum(tf.cast(length, tf.int64), 0))


def replaced(data: tf.Tensor, start: tf.Tensor | int, text: tf.Tensor | bytes) -> tf.Tensor:
    """Replaces the bytes of a string from ``start`` on by equally many others."""
    size = tf.cast(tf.strings.length(data), tf.int64)
    end = tf.cast(start, tf.int64) + tf.cast(tf.strings.length(text), tf.int64)
    return tf.strings.join([part(data, 0, start), text, part(data, end, size)])


def octets(data: tf.Tensor, count: int) -> tf.Tensor:
    """The first ``count`` bytes of a string, int64, ``(count,)``; zeros after its end."""
    return tf.cast(tf.io.decode_raw(data, tf.uint8, fixed_length=count), tf.int64)


def number(values: tf.Tensor, big_endian: bool) -> tf.Tensor:
    """The unsigned integer in the bytes ``(..., count)``: int64, ``(...)``."""
    powers = [256**power for power in range(values.shape[-1])]
    weights = tf.constant(powers[::-1] if big_endian else powers, tf.int64)
    return tf.reduce_sum(values * weights, axis=-1)


def contains(data: tf.Tensor, mark: bytes) -> tf.Tensor:
    """Whether a string contains the bytes ``mark``; uses TensorFlow's fastest search."""
    pieces = tf.raw_ops.StringSplitV2(input=[data], sep=mark, maxsplit=1)
    return tf.size(pieces.values) > 1


def find_part(data: tf.Tensor, start: int, step: Callable) -> tf.Tensor:
    """Walks over the parts of a file to the first match; returns its contents, or ``b""``.

    Args:
        data: bytes of the file.
        start: place of the first part.
        step: takes the place of a part; returns whether it is the wanted part, whether it is the
            last, the place of the next part, and the place and length of its contents.
    """
    size = tf.cast(tf.strings.length(data), tf.int64)

    def body(place, _):
        is_found, is_last, following, contents = step(place)
        is_over = is_found | is_last | (following >= size)
        return (
            tf.where(is_over, tf.constant(-1, tf.int64), following),
            tf.where(is_found, contents, tf.zeros([2], tf.int64)),
        )

    _, contents = tf.while_loop(
        lambda place, _: place >= 0,
        body,
        (tf.constant(start, tf.int64), tf.zeros([2], tf.int64)),
        maximum_iterations=MAX_STEPS,
    )
    return part(data, contents[0], contents[1])
