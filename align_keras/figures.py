"""Matplotlib figures without a display, saved as PNG; text is never read as a formula."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from align_keras import files, paths
from align_keras.remote_path import RemotePath


def plain(text: str) -> str:
    """Text in a form that Matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def wrap(text: str, width: int, most: int = 600) -> list[str]:
    """Wraps text into lines of at most ``width`` characters; cuts it after ``most`` characters.

    Line breaks of the text are kept, and long words are broken.
    """
    own = [textwrap.wrap(line, width) for line in shorten(text, most).splitlines()]
    return [line for lines in own for line in lines]


def shorten(text: str, most: int) -> str:
    """Text of at most ``most`` characters, with an ellipsis if it was cut."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with a single pair of axes, in inches from the upper left corner.

    Separate axes for every picture would take four times as long. Call ``close_sheet`` at the end.
    """
    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((0, 0, 1, 1))


def close_sheet(figure: Figure, axes: Axes, path: str | Path | RemotePath) -> None:
    """Writes a ``sheet`` to a file."""
    width, height = figure.get_size_inches()
    # Drawing pictures changes both limits.
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    save(figure, path)


def put(axes: Axes, image: Any, left: float, top: float, size: float, **frame: Any) -> None:
    """Draws an image in its aspect ratio, with a frame, in the middle of a square of a ``sheet``.

    Args:
        axes: axes of the ``sheet``.
        image: pixels, ``(height, width, 3)``, uint8 or 0 .. 1.
        left: left edge of the square, in inches.
        top: top edge of the square, in inches.
        size: side of the square, in inches.
        **frame: options of ``matplotlib.patches.Rectangle``; without any there is no frame.
    """
    high, wide = np.shape(image)[:2]
    scale = size / max(high, wide)
    wide, high = wide * scale, high * scale
    left, top = left + (size - wide) / 2, top + (size - high) / 2
    axes.imshow(image, extent=(left, left + wide, top + high, top))
    if frame:
        axes.add_patch(Rectangle((left, top), wide, high, fill=False, **frame))


def write(
    axes: Axes, lines: Sequence[str], left: float, top: float, size: float = 9, **options: Any
) -> float:
    """Writes lines below each other on a ``sheet``; returns the top of the next line."""
    height = line_height(size)
    for place, line in enumerate(lines):
        axes.text(left, top + height * place, plain(line), fontsize=size, va="top", **options)
    return top + height * len(lines)


def line_height(size: float) -> float:
    """The height in inches of a line of text, given its size in points."""
    return size * 1.25 / 72


def save(figure: Figure, path: str | Path | RemotePath) -> None:
    """Writes a figure as PNG, completely or not at all; creates the folder.

    Does not use pyplot, which keeps every figure and needs a display.
    """
    path = paths.path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Characters missing in the font are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        canvas = FigureCanvasAgg(figure)
        files.write_whole(path, lambda partial: canvas.print_png(str(partial)))
