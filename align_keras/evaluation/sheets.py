"""Draws retrieved pairs: captions, images, scores."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from align_keras import figures
from align_keras.paths import AnyPath

# Inches.
_CAPTION_WIDTH = 2.5
_MARGIN = 0.1
_CELL = 1.4
_PICTURE = 1.3
_TITLE = 0.25


def draw_retrievals(
    path: str | AnyPath,
    captions: Sequence[str],
    images: np.ndarray,
    right: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Draws captions with the images they retrieve, best first; a right one is framed green.

    Args:
        path: path of the PNG.
        captions: strings, one a row.
        images: ``(captions, columns, size, size, 3)``, uint8 or 0 .. 1.
        right: bool, ``(captions, columns)``.
        scores: similarities, ``(captions, columns)``.
    """
    rows, columns = right.shape
    width, height = _CAPTION_WIDTH + _CELL * columns, (_CELL + _TITLE) * rows
    figure = Figure(figsize=(width, height))
    # One coordinate system in inches: axes for every picture took four times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    for row in range(rows):
        top = (_CELL + _TITLE) * row
        caption = textwrap.fill(textwrap.shorten(captions[row], 110), 26)
        middle = top + _TITLE + _PICTURE / 2
        axes.text(_MARGIN, middle, figures.plain(caption), va="center", fontsize=9)
        for column in range(columns):
            left = _CAPTION_WIDTH + _CELL * column
            corner = (left, top + _TITLE)
            extent = (left, left + _PICTURE, top + _TITLE + _PICTURE, top + _TITLE)
            axes.imshow(images[row, column], extent=extent)
            axes.text(
                left + _PICTURE / 2,
                top + _TITLE - 0.06,
                f"{scores[row, column]:.2f}",
                ha="center",
                fontsize=8,
            )
            frame = {"edgecolor": "lightgrey", "linewidth": 1}
            if right[row, column]:
                frame = {"edgecolor": "tab:green", "linewidth": 4}
            axes.add_patch(Rectangle(corner, _PICTURE, _PICTURE, fill=False, **frame))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    figures.save(figure, path)
