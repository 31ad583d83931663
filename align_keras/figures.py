"""Matplotlib figures without a display: saved as PNG, with text as it stands."""

import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from align_keras import files, paths
from align_keras.remote_path import RemotePath


def plain(text: str) -> str:
    """Text that Matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


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
