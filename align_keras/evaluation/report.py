"""The report of an evaluation: a table, JSON in CLIP_benchmark's form, pictures."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from align_keras import figures, paths
from align_keras.evaluation.metrics import json_names, title_of
from align_keras.files import write_whole
from align_keras.paths import AnyPath

# Above so many classes a name an axis tick would not be readable.
_NAMED_CLASSES = 40

# Of a sheet of predictions, in inches.
_CELL_WIDTH, _CELL_HEIGHT = 1.7, 2.1
_PICTURE = 1.6


def format_table(
    title: str,
    metrics: Mapping[str, float],
    chance: Mapping[str, float | None],
    paper: Mapping[str, float | None],
) -> str:
    """Every metric beside its chance and the paper's figure, as text.

    Args:
        title: title of the table.
        metrics: fractions by the names of ``metrics.TITLES``; ranks if the name ends in ``rank``.
        chance: the metrics of a model without any skill; may lack some.
        paper: the paper's figures; may lack some.
    """
    columns = {"model": metrics, "chance": chance, "paper": paper}
    # A column without any figure would only raise a question.
    columns = {
        head: values
        for head, values in columns.items()
        if any(values.get(name) is not None for name in metrics)
    }
    lines = [f"\n{title}", f"{'':<34}" + "".join(f"{head:>10}" for head in columns)]
    for name in metrics:
        cells = [cell(name, values.get(name)) for values in columns.values()]
        lines.append(f"{title_of(name):<34}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def cell(name: str, value: float | None) -> str:
    """A metric as tables show it; empty for None."""
    if value is None:
        return ""
    if name.endswith(("rank", "pairs")):
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.3f}" if "spearman" in name else f"{value:.1%}"


def write_json(
    path: str | AnyPath,
    dataset: str,
    model: str,
    task: str,
    metrics: Mapping[str, float],
    **others: Mapping[str, float] | int | str | list[str],
) -> None:
    """Writes a result with CLIP_benchmark's names.

    Args:
        path: path of the file; its folder is made.
        dataset: name.
        model: name or address of the preset.
        task: ``zeroshot_retrieval``, ``zeroshot_classification``, ``linear_probe``, ...
        metrics: by the names of ``metrics.TITLES``.
        **others: further metrics, such as ``chance``, counts and texts.
    """
    path = paths.path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "dataset": dataset,
        "model": "align-keras",
        "pretrained": str(model),
        "task": task,
        "metrics": json_names(metrics, task),
        "language": "en",
        **{
            name: json_names(value, task) if isinstance(value, Mapping) else value
            for name, value in others.items()
        },
    }
    write_whole(path, json.dumps(result, indent=2) + "\n")


def draw_confusion(path: str | AnyPath, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    """Draws which classes (rows) are taken for which (columns), in shares of each row.

    Args:
        path: path of the PNG.
        matrix: as returned by ``zero_shot.confusion_matrix``. Classes without images get no row,
            and no column either if they were never predicted.
        class_names: strings.
    """
    rows = np.flatnonzero(matrix.sum(1))
    columns = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    shares = matrix[rows][:, columns] / matrix[rows].sum(1, keepdims=True)
    named = len(columns) <= _NAMED_CLASSES
    size = 4 + 0.3 * len(columns) if named else 9
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, label="share of the class's images", shrink=0.7)
    axes.set(xlabel="predicted", ylabel="class")
    if named:
        axes.set_xticks(range(len(columns)), [class_names[int(c)] for c in columns], rotation=90)
        axes.set_yticks(range(len(rows)), [class_names[int(r)] for r in rows])
        for row, column in np.argwhere(shares >= 0.005):
            share = shares[row, column]
            color = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    else:
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{len(rows):,} classes with images, {len(columns):,} predicted or with")
    figures.save(figure, path)


def draw_predictions(
    path: str | AnyPath,
    images: Sequence[np.ndarray] | np.ndarray,
    names: Sequence[str],
    predictions: Sequence[str],
    columns: int = 8,
) -> None:
    """Draws images with their class and what they were taken for: green where right.

    Args:
        path: path of the PNG.
        images: ``(images, size, size, 3)``, uint8 or 0 .. 1.
        names: their classes, strings.
        predictions: what they were taken for, strings.
        columns: images per row.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(_CELL_WIDTH * columns, _CELL_HEIGHT * rows))
    # One coordinate system in inches, as axes for every picture take far longer.
    axes = figure.add_axes((0, 0, 1, 1))
    for index, (image, name, predicted) in enumerate(zip(images, names, predictions, strict=True)):
        left = _CELL_WIDTH * (index % columns) + (_CELL_WIDTH - _PICTURE) / 2
        bottom = _CELL_HEIGHT * (index // columns + 1)
        top = bottom - _PICTURE
        right = name == predicted
        axes.imshow(image, extent=(left, left + _PICTURE, bottom, top))
        axes.text(
            left + _PICTURE / 2,
            top - 0.06,
            _short(name) if right else f"{_short(name)}\ntaken for {_short(predicted)}",
            color="tab:green" if right else "tab:red",
            fontsize=9,
            ha="center",
        )
    axes.set(xlim=(0, _CELL_WIDTH * columns), ylim=(_CELL_HEIGHT * rows, 0))
    axes.axis("off")
    figures.save(figure, path)


def _short(text: str) -> str:
    text = figures.plain(text)
    return text if len(text) <= 18 else text[:17] + "…"
