"""A bound on the pixels that are decoded at a time, by several threads."""

import contextlib
import re
import threading
from collections.abc import Iterator

from align_keras.preprocessing.decoding.faults import MAX_PIXELS

# A marker of JPEG, before which any number of 0xff may stand; the length of its segment follows.
# Markers without a segment stand nowhere before a frame.
_SEGMENT = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# SOF0 to SOF15, without the tables and arithmetic coding's settings that lie between them.
_FRAMES = {bytes([0xC0 + number]) for number in range(16) if number not in (4, 8, 12)}
# By Huffman and by arithmetic coding.
_PROGRESSIVE = {b"\xc2", b"\xca"}
# Colour types of PNG.
_GREY_ALPHA, _RGB_ALPHA = b"\x04", b"\x06"


class PixelBudget:
    """An amount that several threads share; who wants more than is left waits."""

    def __init__(self, amount: int) -> None:
        self._amount = self._left = amount
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Inside the block, this amount of the budget is taken, or all of it if that is less."""
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
    """How much of a budget an image takes: its pixels by the header; the most without one.

    A progressive JPEG, and a PNG with an alpha channel or 16 bits per channel, count four times:
    decoding them takes about 10 bytes per pixel, decoding other JPEGs and PNGs 3. Formats other
    than JPEG and PNG count as the largest image.
    """
    if encoded.startswith(b"\x89PNG"):
        pixels = int.from_bytes(encoded[16:20]) * int.from_bytes(encoded[20:24])
        bits, colours = encoded[24:25], encoded[25:26]
        is_large = bits == b"\x10" or colours in (_GREY_ALPHA, _RGB_ALPHA)
    elif encoded.startswith(b"\xff\xd8"):
        frame = _frame_of_jpeg(encoded)
        pixels = int.from_bytes(frame[5:7]) * int.from_bytes(frame[7:9])
        # A height of 0 is given at the end of the file.
        pixels, is_large = pixels or MAX_PIXELS, frame[1:2] in _PROGRESSIVE
    else:
        return MAX_PIXELS
    return pixels * 4 if is_large else pixels


def _frame_of_jpeg(encoded: bytes) -> bytes:
    """The segment of a JPEG that has its kind and its sides; empty if there is none."""
    place = 2
    while found := _SEGMENT.match(encoded, place):
        kind = found[1]
        if kind in _FRAMES:
            return encoded[found.end() - 2 : found.end() + 9]
        place = found.end() + int.from_bytes(encoded[found.end() : found.end() + 2])
    return b""
