"""What a run shows at its end: pictures and a table."""

import textwrap
import warnings

import numpy as np
from matplotlib import ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RECALLS = tuple(f"{way}_recall_at_{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))
ACCURACIES = ("zero_shot_top_1", "zero_shot_unseen_top_1")
_TITLES = {
    **{f"i2t_recall_at_{k}": f"image to text R@{k}" for k in (1, 5, 10)},
    **{f"t2i_recall_at_{k}": f"text to image R@{k}" for k in (1, 5, 10)},
    "zero_shot_top_1": "zero-shot top-1",
    "zero_shot_unseen_top_1": "zero-shot top-1, unseen classes",
}


def format_table(metrics, chance):
    """Every metric beside its chance, as text; what is None is left out.

    ``metrics["start"]``, where it is there, has those of the model that the run started from.
    """
    start = metrics.get("start")
    lines = [
        f"\n{metrics['num_pairs']:,} held-out pairs, {metrics['num_classes']:,} classes",
        f"{'':<34}{'model':>10}{'chance':>10}" + (f"{'start':>10}" if start else ""),
    ]
    for name, title in _TITLES.items():
        if metrics[name] is not None:
            line = f"{title:<34}{metrics[name]:>10.1%}{chance[name]:>10.1%}"
            lines.append(line + (f"{start[name]:>10.1%}" if start else ""))
    speed = metrics["train_pairs_per_second"]
    trained = f"{speed:,.0f} pairs/s" if speed else "not timed"
    step = metrics["resumed_at_step"]
    since = f"since resuming at step {step:,}" if step else "in all"
    lines.append(f"\n{metrics['seconds']:,.0f} s {since}; training {trained}")
    return "\n".join(lines)


def draw_retrieval_sheet(path, evaluation, embeddings, rows=8, columns=6):
    """Draws what evenly spread held-out captions retrieve.

    Args:
        path: of the PNG.
        evaluation: a ``HeldOutPairs``.
        embeddings: of its ``embed``.
        rows: captions.
        columns: images a caption.
    """
    groups = embeddings["groups"]
    _, images = np.unique(groups, return_index=True)
    asked = np.unique(np.linspace(0, len(groups) - 1, rows).astype(int))
    columns = min(columns, len(images))
    scores = embeddings["text_embeddings"][asked] @ embeddings["image_embeddings"][images].T
    best = np.argsort(-scores, axis=1)[:, :columns]
    pictures = evaluation.images(embeddings["rows"][images[best]].ravel())
    draw_retrievals(
        path,
        [evaluation.captions[row] for row in embeddings["rows"][asked]],
        pictures.reshape(*best.shape, *pictures.shape[1:]),
        groups[images[best]] == groups[asked][:, None],
        np.take_along_axis(scores, best, axis=1),
    )


def draw_curves(path, lines):
    """Draws loss, recalls, temperature and learning rate over the steps.

    Args:
        path: of the PNG.
        lines: as of ``monitoring.read_log``.
    """
    train = [line for line in lines if line["kind"] == "train"]
    held_out = [line for line in lines if line["kind"] == "eval"]
    panels = (
        ("loss", (("loss", train),)),
        (
            "recall at 1 in the batch",
            (("i2t_recall_at_1", train), ("t2i_recall_at_1", train)),
        ),
        (
            "recall at 5, held out",
            (("i2t_recall_at_5", held_out), ("t2i_recall_at_5", held_out)),
        ),
        ("temperature", (("temperature", train),)),
        ("learning rate", (("learning_rate", train),)),
        ("gradient norm", (("gradient_norm", train),)),
    )
    figure = Figure(figsize=(13, 7), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        top = 0.0
        for name, source in curves:
            points = [(line["step"], line[name]) for line in source if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else None)
                top = max(top, *(value for _, value in points))
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        # By itself the top would hug a curve that hardly moves.
        axes.set_ylim(0, 1.1 * top or None)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(["image to text", "text to image"][: len(axes.lines)])
    _save(figure, path)


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
        grid[row, 0].text(0, 0.5, _plain(caption), va="center", fontsize=9)
        for column in range(columns):
            axes = grid[row, column + 1]
            axes.imshow(images[row, column])
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{scores[row, column]:.2f}", fontsize=8)
            axes.spines[:].set(
                color="tab:green" if right[row, column] else "lightgrey",
                linewidth=4 if right[row, column] else 1,
            )
    _save(figure, path)


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
    figure.suptitle(_plain(textwrap.shorten(title, 110)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, picture, name, score in zip(grid, pictures, names, scores, strict=False):
        axes.imshow(picture)
        # A long path has no spaces to cut it at; its end tells it from others.
        shown = textwrap.fill(
            name if " " in name else name[-60:], 30, max_lines=2, break_on_hyphens=False
        )
        axes.set_title(f"{score:.3f}\n{_plain(shown)}", fontsize=7)
    with warnings.catch_warnings():
        # Scripts that the font lacks show as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        _save(figure, path)


def _plain(text):
    # A dollar sign would start a formula.
    return text.replace("$", r"\$")


def _save(figure, path):
    # Not pyplot: it keeps every figure and looks for a display.
    FigureCanvasAgg(figure).print_png(str(path))
