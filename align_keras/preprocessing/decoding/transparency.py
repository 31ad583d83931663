"""Draws transparent pixels on white, in Pillow's arithmetic."""

import tensorflow as tf


def on_white(image: tf.Tensor) -> tf.Tensor:
    """Draws pixels on white; the result equals that of ``PIL.Image.alpha_composite`` exactly.

    Args:
        image: red, green, blue and opacity, uint8, ``(height, width, 4)``.

    Returns:
        uint8, ``(height, width, 3)``.
    """
    colours, opacity = image[..., :3], image[..., 3:]
    # Most images with an alpha channel are opaque.
    return tf.cond(tf.reduce_all(opacity == 255), lambda: colours, lambda: _mixed(colours, opacity))


def _mixed(colours, opacity):
    # The sum fits into 16 bits: the maximum is 255 * 255 + 128.
    darkness = tf.cast(255 - colours, tf.uint16) * tf.cast(opacity, tf.uint16)
    total = tf.constant(255 * 255 + 128, tf.uint16) - darkness
    # An exact division by 255, with rounding.
    total += tf.bitwise.right_shift(total, tf.constant(8, tf.uint16))
    return tf.cast(tf.bitwise.right_shift(total, tf.constant(8, tf.uint16)), tf.uint8)
