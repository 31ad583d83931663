"""Pictures of what was retrieved or found: captions, images, scores."""

import textwrap

from matplotlib.figure import Figure

from align_keras import figures


def draw_retrievals(path, captions, images, right, scores):
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


def draw_matches(path, title, pictures, names, scores, columns=6):
    """Draws what a search found, best first.

    Args:
        path: of the PNG.
        title: what was asked.
        pictures: PIL images, of any size.
        names: their names.
        scores: their similarities.
        columns: images a row.
    """
    rows = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(2.2 * columns, 2.6 * rows + 0.5), layout="constrained")
    figure.suptitle(figures.plain(textwrap.shorten(title, 110)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, picture, name, score in zip(grid, pictures, names, scores, strict=False):
        axes.imshow(picture)
        # A long path has no spaces to cut it at; its end tells it from others.
        shown = textwrap.fill(
            name if " " in name else name[-60:], 30, max_lines=2, break_on_hyphens=False
        )
        axes.set_title(f"{score:.3f}\n{figures.plain(shown)}", fontsize=7)
    figures.save(figure, path)
