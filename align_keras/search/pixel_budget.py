"""A bound on the pixels that are decoded at a time, by several threads."""

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

from align_keras.preprocessing.decoding.faults import MAX_PIXELS


class PixelBudget:
    """An amount that several threads share; who wants more than is left waits."""

    def __init__(self, amount: int) -> None:
        self._amount = self._left = amount
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Within, an amount is taken, or all there is if it is more."""
        amount = min(amount, self._amount)
        with self._changed:
            self._changed.wait_for(lambda: amount <= self._left)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


def pixels_of(encoded: bytes) -> int:
    """How many pixels an image may have, by its header: of a JPEG or PNG; the most of others."""
    if encoded.startswith(b"\x89PNG"):
        return int.from_bytes(encoded[16:20]) * int.from_bytes(encoded[20:24])
    if not encoded.startswith(b"\xff\xd8"):
        return MAX_PIXELS
    try:
        height, width, _ = tf.image.extract_jpeg_shape(encoded).numpy().tolist()
    except tf.errors.InvalidArgumentError:
        return MAX_PIXELS
    return height * width
