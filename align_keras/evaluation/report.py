"""What an evaluation shows: a table, JSON as CLIP_benchmark writes it, pictures."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from align_keras import figures

# Above so many classes a name an axis tick would not be readable.
_NAMED_CLASSES = 40
#: The titles of figures by their names in the JSON; those of LAION's CLIP_benchmark where it has
#: them: its "image retrieval" asks with texts, its "text retrieval" with images.
TITLES = {
    **{f"text_retrieval_recall@{k}": f"image to text R@{k}" for k in (1, 5, 10)},
    **{f"image_retrieval_recall@{k}": f"text to image R@{k}" for k in (1, 5, 10)},
    "mean_recall": "mean recall",
    "text_retrieval_median_rank": "image to text median rank",
    "image_retrieval_median_rank": "text to image median rank",
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class_recall": "mean per-class accuracy",
    **{f"knn_recall@{k}": f"nearest neighbours R@{k}" for k in (1, 5, 10)},
    **{
        f"{way}_recall@{k}": f"{title} R@{k}"
        for way, title in (
            ("i2t", "image to text"),
            ("t2i", "text to image"),
            ("t2t", "text to text"),
            ("i2i", "image to image"),
        )
        for k in (1, 5, 10)
    },
    "sts_spearman": "STS, two captions",
    "sis_spearman": "SIS, two images",
    "sits_spearman": "SITS, caption and image",
}
_CLIP_NAMES = {
    **{f"i2t_recall_at_{k}": f"text_retrieval_recall@{k}" for k in (1, 5, 10)},
    **{f"t2i_recall_at_{k}": f"image_retrieval_recall@{k}" for k in (1, 5, 10)},
    "i2t_median_rank": "text_retrieval_median_rank",
    "t2i_median_rank": "image_retrieval_median_rank",
    "top_1": "acc1",
    "top_5": "acc5",
    "mean_per_class": "mean_per_class_recall",
    **{f"knn_recall_at_{k}": f"knn_recall@{k}" for k in (1, 5, 10)},
}


def clip_benchmark_names(metrics):
    """The figures under the names that CLIP_benchmark uses; others keep theirs."""
    return {_CLIP_NAMES.get(name, name): value for name, value in metrics.items()}


def format_table(title, metrics, chance, paper):
    """Every figure beside its chance and the paper's, as text.

    Args:
        title: of the table.
        metrics: fractions by name; ranks where the name ends in ``rank``.
        chance: those that a model without any skill has, by the same names; may lack some.
        paper: the paper's, likewise.
    """
    lines = [f"\n{title}", f"{'':<34}{'model':>10}{'chance':>10}{'paper':>10}"]
    for name, value in metrics.items():
        cells = [value, chance.get(name), paper.get(name)]
        cells = [_cell(name, cell) for cell in cells]
        lines.append(f"{title_of(name):<34}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def title_of(name):
    """A figure's title; ``1000_fold_mean_recall`` -> ``1000 fold mean recall``."""
    return TITLES.get(name) or name.replace("_", " ")


def _cell(name, value):
    if value is None:
        return ""
    if name.endswith(("rank", "pairs")):
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.3f}" if "spearman" in name else f"{value:.1%}"


def write_json(path, dataset, model, task, metrics, **others):
    """Writes a result with the outer names that CLIP_benchmark uses.

    Args:
        path: of the file; its folder is made.
        dataset: name.
        model: name or address of the preset.
        task: ``zeroshot_retrieval``, ``zeroshot_classification``, ``linear_probe``, ...
        metrics: figures by name.
        **others: further fields.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "dataset": dataset,
        "model": "align-keras",
        "pretrained": str(model),
        "task": task,
        "metrics": metrics,
        "language": "en",
        **others,
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def draw_confusion(path, matrix, class_names):
    """Draws which classes (rows) are taken for which (columns), in shares of each row.

    Args:
        path: of the PNG.
        matrix: as of ``zero_shot.confusion_matrix``; classes without images are left out of the
            rows and, if nothing was taken for them, of the columns.
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
        axes.set_xticks(range(len(columns)), [class_names[c] for c in columns], rotation=90)
        axes.set_yticks(range(len(rows)), [class_names[r] for r in rows])
        for row, column in np.argwhere(shares >= 0.005):
            share = shares[row, column]
            color = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    else:
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{len(rows):,} classes with images, {len(columns):,} predicted or with")
    figures.save(figure, path)


def draw_predictions(path, images, names, predictions, columns=8):
    """Draws images with their class and what they were taken for: green where right.

    Args:
        path: of the PNG.
        images: ``(images, size, size, 3)``, 0 .. 1.
        names: their classes, strings.
        predictions: what they were taken for, strings.
        columns: images a row.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, name, predicted in zip(grid, images, names, predictions, strict=False):
        right = name == predicted
        axes.imshow(image)
        axes.set_title(
            _short(name) if right else f"{_short(name)}\ntaken for {_short(predicted)}",
            color="tab:green" if right else "tab:red",
            fontsize=9,
        )
    figures.save(figure, path)


def _short(text):
    text = figures.plain(text)
    return text if len(text) <= 18 else text[:17] + "…"
