"""Which classes are confused: a table of the most confused pairs, and a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from align_keras import figures
from align_keras.paths import AnyPath

#: Maximum number of classes in a picture; with more, the names at the axes would be unreadable.
MAX_CLASSES = 40
_MAX_NAME = 28
# Smaller fractions would be displayed as 0%.
_LEAST_SHARE = 0.005


def most_confused(matrix: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The most frequent pairs of a true class and a wrongly predicted class.

    Args:
        matrix: result of ``zero_shot.confusion_matrix``.
        count: maximum number of pairs.

    Returns:
        ``(class, predicted)``, the pair with the most images first. Ties are ordered by the
        fraction of the class's images.
    """
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    shares = wrong[rows, columns] / matrix.sum(1)[rows]
    order = np.lexsort((columns, rows, -shares, -wrong[rows, columns]))[:count]
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def format_confused(matrix: np.ndarray, class_names: Sequence[str], count: int = 10) -> str:
    """The most confused pairs as a table; empty if there are no mistakes.

    Args:
        matrix: result of ``zero_shot.confusion_matrix``.
        class_names: strings.
        count: maximum number of pairs.
    """
    pairs = most_confused(matrix, count)
    if not pairs:
        return ""
    lines = [f"\n{'class':<30}{'most often taken for':<30}{'images':>8}{'share of class':>16}"]
    for own, other in pairs:
        images = int(matrix[own, other])
        names = (figures.shorten(class_names[place], _MAX_NAME) for place in (own, other))
        share = images / matrix[own].sum()
        lines.append("".join(f"{name:<30}" for name in names) + f"{images:>8,}{share:>16.1%}")
    return "\n".join(lines)


def classes_to_draw(matrix: np.ndarray, most: int = MAX_CLASSES) -> np.ndarray:
    """The classes in a picture, in their order: all classes, or those of the most confused pairs.

    Classes without images that are never predicted are left out.
    """
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    if len(present) <= most:
        return present
    pairs = most_confused(matrix, matrix.size)
    # If few pairs are confused, the first other classes fill the picture.
    ordered = [place for pair in pairs for place in pair] + present.tolist()
    return np.sort(list(dict.fromkeys(ordered))[:most])


def draw_confusion(path: str | AnyPath, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """Draws which classes (rows) are predicted as which (columns), in per cent of each row.

    With more than ``MAX_CLASSES`` classes, only those of the most confused pairs are drawn. A
    column "others" then counts predictions of the remaining classes.

    Args:
        path: path of the PNG.
        matrix: result of ``zero_shot.confusion_matrix``; classes without images have no row.
        class_names: strings.
    """
    columns = classes_to_draw(matrix)
    rows = columns[matrix[columns].sum(1) > 0]
    names = [figures.plain(figures.shorten(name, _MAX_NAME)) for name in class_names]
    shares = matrix[rows][:, columns] / matrix[rows].sum(1, keepdims=True)
    tops = [names[column] for column in columns]
    in_all = np.count_nonzero(matrix.sum(0) + matrix.sum(1))
    title = ""
    if in_all > len(columns):
        shares = np.column_stack([shares, 1 - shares.sum(1)])
        tops.append("(others)")
        title = f"the {len(columns)} most confused of {in_all:,} classes"
    size = 4 + 0.32 * len(tops)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    percent = ticker.PercentFormatter(1, decimals=0)
    figure.colorbar(drawn, label="share of the class's images", shrink=0.7, format=percent)
    axes.set(xlabel="predicted", ylabel="class", title=title)
    axes.set_xticks(range(len(tops)), tops, rotation=90, fontsize=9)
    axes.set_yticks(range(len(rows)), [names[row] for row in rows], fontsize=9)
    _write_shares(axes, shares)
    figures.save(figure, path)


def _write_shares(axes: Axes, shares: np.ndarray) -> None:
    for row, column in np.argwhere(shares >= _LEAST_SHARE):
        share = shares[row, column]
        color = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=7, color=color)
