"""Draws the results of a model: images for captions, captions for images, classes of images."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes

from align_keras import figures
from align_keras.paths import AnyPath

#: Pixels ``(height, width, 3)``, uint8 or 0 .. 1, each image in its aspect ratio.
Pictures: TypeAlias = Sequence[np.ndarray] | np.ndarray

# Inches.
_CAPTION_WIDTH = 2.5
_MARGIN = 0.1
_CELL = 1.4
_PICTURE = 1.3
_QUERY = 1.8
_SCORE_WIDTH = 0.6
_TITLE = 0.25
_LEGEND = 0.4
_TEXT_WIDTH = 6.0
# For a sheet of classes.
_CLASS_CELL, _CLASS_PICTURE = 1.8, 1.6
# Characters per line, at 9 and 8 points.
_CAPTION_LINE, _TEXT_LINE, _CLASS_LINE = 29, 68, 24

_RIGHT, _WRONG, _SOFT = "tab:green", "tab:red", "dimgrey"


def draw_retrievals(
    path: str | AnyPath,
    captions: Sequence[str],
    images: Sequence[Pictures] | np.ndarray,
    right: np.ndarray,
    scores: np.ndarray,
    ranks: Sequence[int] | np.ndarray | None = None,
    candidates: int = 0,
) -> None:
    """Draws captions with the images they retrieve, best first; a right image has a green frame.

    Args:
        path: path of the PNG.
        captions: strings, one per row.
        images: for each caption its pictures, one per column.
        right: bool, ``(captions, columns)``.
        scores: similarities, ``(captions, columns)``.
        ranks: rank of each caption's own image among all images, from 0; None if it is unknown.
        candidates: number of ranked images.
    """
    rows, columns = right.shape
    lines = [figures.wrap(caption, _CAPTION_LINE) for caption in captions]
    heights = [
        max(_TITLE + _CELL, figures.line_height(9) * (len(own) + 2) + 2 * _MARGIN) for own in lines
    ]
    width = max(_CAPTION_WIDTH + _CELL * columns, _TEXT_WIDTH)
    figure, axes = figures.sheet(width, sum(heights) + _LEGEND)
    top = 0.0
    for row in range(rows):
        below = figures.write(axes, lines[row], _MARGIN, top + _TITLE)
        if ranks is not None:
            note = _rank_note("its image", int(ranks[row]), candidates)
            figures.write(axes, [note], _MARGIN, below + 0.04, 8, color=_SOFT)
        for column in range(columns):
            left = _CAPTION_WIDTH + _CELL * column
            score = f"{scores[row, column]:.2f}"
            figures.write(axes, [score], left + _PICTURE / 2, top + 0.08, 8, ha="center")
            frame = _frame(bool(right[row, column]))
            figures.put(axes, images[row][column], left, top + _TITLE, _PICTURE, **frame)
        top += heights[row]
    legend = "number: cosine similarity, best first"
    if ranks is not None or right.any():
        _draw_key(axes, _MARGIN, top + 0.1)
        legend = f"green frame: the caption's own image;  {legend}"
    figures.write(axes, [legend], _MARGIN + 0.3, top + 0.11, 8, color=_SOFT)
    figures.close_sheet(figure, axes, path)


def draw_captions(
    path: str | AnyPath,
    images: Pictures,
    captions: Sequence[Sequence[str]],
    right: np.ndarray,
    scores: np.ndarray,
    ranks: Sequence[int] | np.ndarray,
    candidates: int,
) -> None:
    """Draws images with the captions they retrieve, best first; right captions are green.

    A caption of another image with the same words as a right one is marked.

    Args:
        path: path of the PNG.
        images: pictures, one per row.
        captions: for each image the captions that it retrieves, one per column.
        right: bool, ``(images, columns)``.
        scores: similarities, ``(images, columns)``.
        ranks: rank of each image's best own caption among all captions, from 0.
        candidates: number of ranked captions.
    """
    marked = [_marked(own, is_right) for own, is_right in zip(captions, right, strict=True)]
    wrapped = [[figures.wrap(caption, _TEXT_LINE) for caption in own] for own in marked]
    gap, line = 0.06, figures.line_height(9)
    heights = [
        max(_QUERY + _TITLE, sum(line * len(own) + gap for own in row)) + 2 * _MARGIN
        for row in wrapped
    ]
    left = _QUERY + 3 * _MARGIN
    figure, axes = figures.sheet(left + _SCORE_WIDTH + _TEXT_WIDTH, sum(heights) + _LEGEND)
    top = 0.0
    for row, height in enumerate(heights):
        figures.put(axes, images[row], _MARGIN, top + _MARGIN, _QUERY, **_frame(False))
        note = _rank_note("its caption", int(ranks[row]), candidates)
        figures.write(axes, [note], _MARGIN, top + _MARGIN + _QUERY + 0.04, 8, color=_SOFT)
        below = top + _MARGIN
        for own, score, is_right in zip(wrapped[row], scores[row], right[row], strict=True):
            figures.write(axes, [f"{score:.2f}"], left, below, 9, color=_SOFT)
            options = {"color": _RIGHT, "weight": "bold"} if is_right else {}
            place = left + _SCORE_WIDTH
            below = figures.write(axes, own, place, below, 9, **options) + gap
        top += height
    legend = "green: a caption of the image;  number: cosine similarity, best first"
    figures.write(axes, [legend], _MARGIN, top + 0.11, 8, color=_SOFT)
    figures.close_sheet(figure, axes, path)


def _marked(captions: Sequence[str], right: np.ndarray) -> list[str]:
    own = {caption for caption, is_right in zip(captions, right, strict=True) if is_right}
    return [
        f"{caption} (of another image)" if caption in own and not is_right else caption
        for caption, is_right in zip(captions, right, strict=True)
    ]


def draw_predictions(
    path: str | AnyPath,
    images: Pictures,
    names: Sequence[str],
    predictions: Sequence[str],
    columns: int = 8,
) -> None:
    """Draws images with their true and predicted classes; green if the prediction is right.

    Args:
        path: path of the PNG.
        images: pictures.
        names: true classes, strings.
        predictions: predicted classes, strings.
        columns: images per row.
    """
    titles = [
        figures.wrap(name if name == taken else f"{name}\ntaken for {taken}", _CLASS_LINE)
        for name, taken in zip(names, predictions, strict=True)
    ]
    starts = range(0, len(images), columns)
    texts = [
        figures.line_height(8) * max(map(len, titles[start : start + columns])) + 0.15
        for start in starts
    ]
    width = max(_CLASS_CELL * min(columns, len(images)), _TEXT_WIDTH / 2)
    height = sum(texts) + _CLASS_CELL * len(texts) + _LEGEND
    figure, axes = figures.sheet(width, height)
    top = 0.0
    for start, text in zip(starts, texts, strict=True):
        for place in range(start, min(start + columns, len(images))):
            left = _CLASS_CELL * (place - start) + (_CLASS_CELL - _CLASS_PICTURE) / 2
            color = _RIGHT if names[place] == predictions[place] else _WRONG
            middle = left + _CLASS_PICTURE / 2
            # The last line stands directly above the picture.
            above = top + text - 0.07 - figures.line_height(8) * len(titles[place])
            figures.write(axes, titles[place], middle, above, 8, color=color, ha="center")
            figures.put(axes, images[place], left, top + text, _CLASS_PICTURE)
        top += text + _CLASS_CELL
    legend = "green: right;  red: the class, and what was predicted"
    figures.write(axes, [legend], _MARGIN, top + 0.11, 8, color=_SOFT)
    figures.close_sheet(figure, axes, path)


def _frame(is_right: bool) -> dict[str, Any]:
    if is_right:
        return {"edgecolor": _RIGHT, "linewidth": 4}
    return {"edgecolor": "lightgrey", "linewidth": 1}


def _draw_key(axes: Axes, left: float, top: float) -> None:
    """Draws a small green frame for the legend."""
    figures.put(axes, np.ones((1, 1, 3)), left, top, 0.18, edgecolor=_RIGHT, linewidth=3)


def _rank_note(what: str, rank: int, candidates: int) -> str:
    return f"{what}: rank {rank + 1:,} of {candidates:,}"
