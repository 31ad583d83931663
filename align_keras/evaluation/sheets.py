"""Draws retrieved pairs: captions, images, scores."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from align_keras import figures


def draw_retrievals(
    path: str | Path,
    captions: Sequence[str],
    images: np.ndarray,
    right: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Draws captions with the images they retrieve, best first; a right one is framed green.

    Args:
        path: of the PNG.
        captions: strings, one a row.
        images: ``(captions, columns, size, size, 3)``, 0 .. 1.
        right: bool, ``(captions, columns)``.
        scores: similarities, ``(captions, columns)``.
    """
    rows, columns = right.shape
    figure = Figure(figsize=(2.6 + 1.4 * columns, 1.65 * rows), layout="constrained")
    grid = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=[1.9] + [1] * columns)
    for row in range(rows):
        caption = textwrap.fill(textwrap.shorten(captions[row], 110), 26)
        grid[row, 0].axis("off")
        grid[row, 0].text(0, 0.5, figures.plain(caption), va="center", fontsize=9)
        for column in range(columns):
            axes = grid[row, column + 1]
            axes.imshow(images[row, column])
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{scores[row, column]:.2f}", fontsize=8)
            axes.spines[:].set(
                color="tab:green" if right[row, column] else "lightgrey",
                linewidth=4 if right[row, column] else 1,
            )
    figures.save(figure, path)
