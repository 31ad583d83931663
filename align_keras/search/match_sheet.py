"""Draws the results of a search as a picture."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from PIL import Image

from align_keras import figures
from align_keras.errors import InputError
from align_keras.preprocessing import thumbnails
from align_keras.search.image_index import MAX_THUMBNAIL_SIZE
from align_keras.search.image_search import Match

# Inches; characters per line at 7 points, and per line of the title.
_CELL, _PICTURE, _TITLE = 2.2, 2.0, 0.5
_LINE, _TITLE_LINE = 34, 70


def draw_matches(
    path: str | Path,
    title: str,
    matches: Sequence[Match],
    columns: int = 6,
    image: bytes = b"",
) -> None:
    """Draws the query and its matches, best first, in their aspect ratios with full captions.

    Args:
        path: path of the PNG; its folder is created if necessary.
        title: the query.
        matches: found images; their names are drawn unchanged. The place of an image without a
            thumbnail stays empty.
        columns: images per row.
        image: the encoded query image; empty if there is no such image.

    Raises:
        InputError: if a thumbnail exceeds the size allowed in an index, or the image does not
            decode.
    """
    names = [
        figures.wrap(f"{match.score:.3f}\n{match.caption or match.name}", _LINE)
        for match in matches
    ]
    starts = range(0, len(matches), columns)
    heights = [
        _CELL + figures.line_height(7) * max(map(len, names[start : start + columns])) + 0.15
        for start in starts
    ]
    query = figures.wrap(title, _TITLE_LINE)
    top = max(_TITLE, figures.line_height(11) * len(query) + 0.2, 1.6 * bool(image))
    width = _CELL * columns
    figure, axes = figures.sheet(width, top + sum(heights))
    left = 0.1
    if image:
        figures.put(axes, thumbnails.small_pixels(image, 400), left, 0.1, 1.4, edgecolor="tab:blue")
        left += 1.6
    figures.write(axes, query, left, 0.15, 11)
    for start, height in zip(starts, heights, strict=True):
        for place in range(start, min(start + columns, len(matches))):
            left = _CELL * (place - start) + 0.1
            below = figures.write(axes, names[place], left, top + 0.05, 7)
            _put(axes, matches[place], left, below + 0.05)
        top += height
    figures.close_sheet(figure, axes, path)


def _put(axes: Axes, match: Match, left: float, top: float) -> None:
    if not match.thumbnail:
        return
    picture = Image.open(io.BytesIO(match.thumbnail))
    if max(picture.size) > MAX_THUMBNAIL_SIZE:
        raise InputError(f"the thumbnail of {match.name} is too large")
    figures.put(axes, picture.convert("RGB"), left, top, _PICTURE)
