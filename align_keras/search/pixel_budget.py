"""Limits the number of pixels that several threads decode at the same time."""

import contextlib
import re
import threading
from collections.abc import Iterator

from align_keras.preprocessing.decoding.faults import MAX_PIXELS

# A JPEG marker, which any number of 0xff bytes may precede; the length of its segment follows.
# Markers without a segment do not occur before a frame.
_SEGMENT = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# SOF0 to SOF15, except the markers among them for tables and arithmetic coding.
_FRAMES = {bytes([0xC0 + number]) for number in range(16) if number not in (4, 8, 12)}
# Progressive JPEGs with Huffman and with arithmetic coding.
_PROGRESSIVE = {b"\xc2", b"\xca"}
# Colour types of PNG.
_GREY_ALPHA, _RGB_ALPHA = b"\x04", b"\x06"


class PixelBudget:
    """An amount shared by several threads. A thread that needs more than is left waits."""

    def __init__(self, amount: int) -> None:
        self._amount = self._left = amount
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Inside the block, this part of the budget is taken; at most the entire budget."""
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
    """The budget that an image needs: its number of pixels by the header, else the maximum.

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
        # If the height is 0, it is only stated at the end of the file.
        pixels, is_large = pixels or MAX_PIXELS, frame[1:2] in _PROGRESSIVE
    else:
        return MAX_PIXELS
    return pixels * 4 if is_large else pixels


def _frame_of_jpeg(encoded: bytes) -> bytes:
    """The segment of a JPEG that states its kind and size; empty if there is none."""
    place = 2
    while found := _SEGMENT.match(encoded, place):
        kind = found[1]
        if kind in _FRAMES:
            return encoded[found.end() - 2 : found.end() + 9]
        place = found.end() + int.from_bytes(encoded[found.end() : found.end() + 2])
    return b""
