"""Draws the results of a search."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from align_keras import figures
from align_keras.errors import InputError
from align_keras.search.image_index import MAX_THUMBNAIL_SIZE
from align_keras.search.image_search import Match


def draw_matches(path: str | Path, title: str, matches: Sequence[Match], columns: int = 6) -> None:
    """Draws matches, best first; images without a thumbnail are white.

    Args:
        path: path of the PNG; its folder is made.
        title: the query.
        matches: names are drawn as they stand.
        columns: images per row.

    Raises:
        InputError: if a thumbnail is larger than an index may have.
    """
    rows = max(1, -(-len(matches) // columns))
    figure = Figure(figsize=(2.2 * columns, 2.6 * rows + 0.5), layout="constrained")
    figure.suptitle(figures.plain(textwrap.shorten(title, 110)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, match in zip(grid, matches, strict=False):
        axes.imshow(_picture(match))
        name = match.caption or match.name
        # A long path has no spaces to cut it at; its end tells it from others.
        shown = textwrap.fill(
            name if " " in name else name[-60:], 30, max_lines=2, break_on_hyphens=False
        )
        axes.set_title(f"{match.score:.3f}\n{figures.plain(shown)}", fontsize=7)
    figures.save(figure, path)


def _picture(match: Match) -> Image.Image:
    if not match.thumbnail:
        return Image.new("RGB", (1, 1), "white")
    picture = Image.open(io.BytesIO(match.thumbnail))
    if max(picture.size) > MAX_THUMBNAIL_SIZE:
        raise InputError(f"the thumbnail of {match.name} is too large")
    return picture
