"""What a run shows at its end: pictures and a table."""

import json
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from align_keras import figures, progress
from align_keras.evaluation.held_out import HeldOutPairs
from align_keras.evaluation.metrics import ACCURACIES, RECALLS, TITLES
from align_keras.evaluation.sheets import draw_retrievals
from align_keras.files import write_whole
from align_keras.paths import AnyPath
from align_keras.runs.log_lines import read_log
from align_keras.wording import counted, rate


def format_table(metrics: dict[str, Any], chance: dict[str, float]) -> str:
    """Every metric beside its chance, as text; a metric that is None is left out.

    Without held-out pairs and classes there is no table.

    ``metrics["start"]``, if it is there, holds the metrics of the model that the run started from.
    """
    start = metrics.get("start")
    lines = ["\nno held-out data: nothing was evaluated"]
    if names := [name for name in RECALLS + ACCURACIES if metrics[name] is not None]:
        kinds = (metrics["num_pairs"], "held-out pair"), (metrics["num_classes"], "class")
        lines = [
            "\n" + ", ".join(counted(count, noun) for count, noun in kinds if count),
            f"{'':<34}{'model':>10}{'chance':>10}" + (f"{'start':>10}" if start else ""),
        ]
    for name in names:
        line = f"{TITLES[name]:<34}{metrics[name]:>10.1%}{chance[name]:>10.1%}"
        lines.append(line + (f"{start[name]:>10.1%}" if start else ""))
    trained = rate(metrics["train_pairs_per_second"] or 0, 1, "pairs")
    step = metrics["resumed_at_step"]
    since = f"since resuming at step {step:,}" if step else "in all"
    lines.append(f"\n{metrics['seconds']:,.0f} s {since}; training {trained}")
    return "\n".join(lines)


def format_start(workdir: AnyPath, steps: int, batch_size: int, pairs: int) -> str:
    """Where a run trains and how long, a line.

    Args:
        workdir: the run's directory.
        steps: in all.
        batch_size: pairs per step.
        pairs: in the training data.
    """
    each, epochs = counted(batch_size, "pair"), steps * batch_size / pairs
    return f"training in {workdir}: {counted(steps, 'step')} of {each}, {epochs:,.3g} epochs"


def format_evaluation(step: int, metrics: dict[str, Any]) -> str:
    """The figures of an evaluation while a run trains, a line; empty if all are None."""
    names = ("i2t_recall_at_1", "t2i_recall_at_1", "zero_shot_top_1", "zero_shot_unseen_top_1")
    found = [
        f"{TITLES[name]} {metrics[name]:.1%}" for name in names if metrics.get(name) is not None
    ]
    return f"step {step:,}, held out: {', '.join(found)}" if found else ""


def draw_retrieval_sheet(
    path: str | AnyPath,
    evaluation: HeldOutPairs,
    embeddings: dict[str, np.ndarray],
    rows: int = 8,
    columns: int = 6,
) -> None:
    """Draws the images that some held-out captions find, evenly spread over the captions.

    Args:
        path: path of the PNG.
        evaluation: the held-out pairs.
        embeddings: as returned by ``evaluation.embed``.
        rows: captions.
        columns: images per caption.
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


def draw_curves(path: str | AnyPath, lines: list[dict[str, Any]]) -> None:
    """Draws loss, recalls, temperature and learning rate over the steps.

    Args:
        path: path of the PNG.
        lines: as returned by ``log.read_log``.
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
    figures.save(figure, path)


def write_report(
    workdir: AnyPath,
    evaluation: HeldOutPairs | None,
    metrics: dict[str, Any],
    chance: dict[str, float],
    held_out: dict[str, Any] | None,
) -> None:
    """Writes ``metrics.json``, draws the pictures and prints the closing table.

    Args:
        workdir: the run's directory.
        evaluation: the held-out pairs; None without any.
        metrics: as ``format_table`` takes them.
        chance: likewise.
        held_out: the pairs' embeddings, as ``HeldOutPairs.embed`` gives them.
    """
    write_whole(workdir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    pictures = ["curves.png"]
    with progress.working("drawing curves and retrieved images"):
        draw_curves(workdir / "curves.png", read_log(workdir))
        if evaluation and held_out:
            pictures.append("retrieval.png")
            draw_retrieval_sheet(workdir / "retrieval.png", evaluation, held_out)
    print(format_table(metrics, chance))
    files = ", ".join(["checkpoints/", "logs/", "preset/", "metrics.json", *pictures])
    print(f"run directory: {workdir} ({files})")
