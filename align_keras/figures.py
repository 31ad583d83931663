"""Matplotlib figures without a display: saved as PNG, with text as it stands."""

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
    """Text that Matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def wrap(text: str, width: int, most: int = 600) -> list[str]:
    """Lines of at most ``width`` characters; what is longer than ``most`` characters is cut.

    A line break of the text stays one, and a long word without spaces is broken.
    """
    own = [textwrap.wrap(line, width) for line in shorten(text, most).splitlines()]
    return [line for lines in own for line in lines]


def shorten(text: str, most: int) -> str:
    """Text of at most ``most`` characters, with an ellipsis where it is cut."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure and its only axes, whose coordinates are inches from the upper left corner.

    Axes for every picture would take four times as long. ``close_sheet`` has to follow.
    """
    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((0, 0, 1, 1))


def close_sheet(figure: Figure, axes: Axes, path: str | Path | RemotePath) -> None:
    """Writes a ``sheet``."""
    width, height = figure.get_size_inches()
    # Pictures set both anew.
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    save(figure, path)


def put(axes: Axes, image: Any, left: float, top: float, size: float, **frame: Any) -> None:
    """Draws an image in the middle of a square of a ``sheet``, in its own shape, with a frame.

    Args:
        axes: as of ``sheet``.
        image: pixels, ``(height, width, 3)``, uint8 or 0 .. 1.
        left: of the square, inches.
        top: likewise.
        size: its side.
        **frame: options of ``matplotlib.patches.Rectangle``; no frame without any.
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
    """Writes lines below each other on a ``sheet``; returns where the next would begin."""
    height = line_height(size)
    for place, line in enumerate(lines):
        axes.text(left, top + height * place, plain(line), fontsize=size, va="top", **options)
    return top + height * len(lines)


def line_height(size: float) -> float:
    """Inches of a line of text of so many points."""
    return size * 1.25 / 72


def save(figure: Figure, path: str | Path | RemotePath) -> None:
    """Writes a ``matplotlib.figure.Figure`` as PNG, whole; its folder is made.

    Not by pyplot, which keeps every figure and looks for a display.
    """
    path = paths.path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Scripts that the font lacks show as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        canvas = FigureCanvasAgg(figure)
        files.write_whole(path, lambda partial: canvas.print_png(str(partial)))
