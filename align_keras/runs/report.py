"""The output at the end of a run: pictures and a table."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from align_keras import figures, progress
from align_keras.evaluation import sheets
from align_keras.evaluation.held_out import HeldOutPairs
from align_keras.evaluation.metrics import ACCURACIES, RECALLS, TITLES
from align_keras.evaluation.retrieval import (
    best_positive_ranks,
    count_shared_captions,
    describe_shared_captions,
)
from align_keras.files import write_whole
from align_keras.paths import AnyPath
from align_keras.runs.alarms import guessing_loss
from align_keras.runs.log_lines import read_log
from align_keras.runs.mixed_sources import Used
from align_keras.wording import counted, rate


def format_table(metrics: dict[str, Any], chance: dict[str, float]) -> str:
    """Every metric with its chance level, as text; metrics that are None are left out.

    If there are neither held-out pairs nor classes, a line says that nothing was evaluated.

    ``metrics["start"]``, if it exists, holds the metrics of the model from which the run started.
    ``metrics["sources"]`` holds the pairs and epochs of each source, if there are several.
    ``metrics["shared_captions"]``, if it exists, is the number of held-out captions that also
    belong to another image.
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
    if names:
        shared = describe_shared_captions(metrics.get("shared_captions", 0), metrics["num_pairs"])
        lines += filter(None, [shared])
    trained = rate(metrics["train_pairs_per_second"] or 0, 1, "pairs")
    step = metrics["resumed_at_step"]
    since = f"since resuming at step {step:,}" if step else "in all"
    lines.append(f"\n{metrics['seconds']:,.0f} s {since}; training {trained}")
    sources = metrics.get("sources", ())
    for own in sources if len(sources) > 1 else ():
        lines.append(f"{own['name']}: {counted(own['pairs'], 'pair')}, {_epochs(own['epochs'])}")
    return "\n".join(lines)


def format_start(workdir: AnyPath, steps: int, batch_size: int, used: Sequence[Used]) -> str:
    """One line with the directory and the length of a run.

    Args:
        workdir: the run's directory.
        steps: total number of steps.
        batch_size: pairs per step.
        used: for each source, the pairs that all steps use.
    """
    epochs = [_epochs(own.epochs) for own in used]
    if len(used) > 1:
        epochs = [f"{length} of {own.name}" for length, own in zip(epochs, used, strict=True)]
    each = counted(batch_size, "pair")
    return f"training in {workdir}: {counted(steps, 'step')} of {each}, {', '.join(epochs)}"


def _epochs(number: float) -> str:
    text = f"{number:,.3g}"
    return "1 epoch" if text == "1" else f"{text} epochs"


def format_evaluation(
    step: int, metrics: Mapping[str, Any], chance: Mapping[str, float | None]
) -> str:
    """One line with the figures of an evaluation during training; empty if all are None."""
    names = ("i2t_recall_at_1", "t2i_recall_at_1", "zero_shot_top_1", "zero_shot_unseen_top_1")
    found = [
        f"{TITLES[name]} {metrics[name]:.1%} (chance {chance[name]:.1%})"
        for name in names
        if metrics.get(name) is not None
    ]
    return f"step {step:,}, held out: {', '.join(found)}" if found else ""


def draw_retrieval_sheet(
    path: str | AnyPath,
    evaluation: HeldOutPairs,
    embeddings: dict[str, np.ndarray],
    rows: int = 8,
    columns: int = 6,
) -> None:
    """Draws the images retrieved by some held-out captions, evenly spread over the captions.

    Args:
        path: path of the PNG.
        evaluation: the held-out pairs.
        embeddings: as returned by ``evaluation.embed``.
        rows: number of captions.
        columns: images per caption.
    """
    groups = embeddings["groups"]
    ids, images = np.unique(groups, return_index=True)
    asked = _spread(len(groups), rows)
    texts, keys = embeddings["text_embeddings"][asked], embeddings["image_embeddings"][images]
    scores = texts @ keys.T
    best = np.argsort(-scores, axis=1)[:, :columns]
    pictures = evaluation.images(embeddings["rows"][images[best]].ravel())
    width = best.shape[1]
    sheets.draw_retrievals(
        path,
        [evaluation.captions[row] for row in embeddings["rows"][asked]],
        [pictures[width * row : width * (row + 1)] for row in range(len(asked))],
        ids[best] == groups[asked][:, None],
        np.take_along_axis(scores, best, axis=1),
        best_positive_ranks(texts, keys, groups[asked], ids),
        len(images),
    )


def draw_captions_sheet(
    path: str | AnyPath,
    evaluation: HeldOutPairs,
    embeddings: dict[str, np.ndarray],
    rows: int = 8,
    columns: int = 5,
) -> None:
    """Draws the captions retrieved by some held-out images, evenly spread over the images.

    Args:
        path: path of the PNG.
        evaluation: the held-out pairs.
        embeddings: result of ``evaluation.embed``.
        rows: number of images.
        columns: captions per image.
    """
    groups = embeddings["groups"]
    ids, images = np.unique(groups, return_index=True)
    asked = _spread(len(images), rows)
    queries, texts = embeddings["image_embeddings"][images[asked]], embeddings["text_embeddings"]
    scores = queries @ texts.T
    best = np.argsort(-scores, axis=1)[:, :columns]
    captions = np.array(evaluation.captions, object)[embeddings["rows"]]
    sheets.draw_captions(
        path,
        evaluation.images(embeddings["rows"][images[asked]]),
        captions[best].tolist(),
        groups[best] == ids[asked][:, None],
        np.take_along_axis(scores, best, axis=1),
        best_positive_ranks(queries, texts, ids[asked], groups),
        len(groups),
    )


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def draw_curves(
    path: str | AnyPath,
    lines: list[dict[str, Any]],
    batch_size: int = 0,
    chance: Mapping[str, float | None] | None = None,
) -> None:
    """Draws loss, recalls, temperature and learning rate by step, with chance levels dashed.

    Args:
        path: path of the PNG.
        lines: result of ``log_lines.read_log``.
        batch_size: pairs per global batch, which determine the chance level of a step's loss and
            recalls; 0 if unknown.
        chance: chance levels of the held-out metrics; some may be missing.
    """
    train = [line for line in lines if line["kind"] == "train"]
    held_out = [line for line in lines if line["kind"] == "eval"]
    ways = ("i2t_recall_at_1", "t2i_recall_at_1"), ("i2t_recall_at_5", "t2i_recall_at_5")
    guessed = [1 / batch_size if batch_size else None] * 2
    known = [(chance or {}).get(name) for name in ways[1]]
    loss = guessing_loss(batch_size) if batch_size else None
    panels: tuple[tuple[str, list[dict[str, Any]], Sequence[str], Sequence[float | None]], ...] = (
        ("loss", train, ("loss",), (loss,)),
        ("recall at 1 in the batch", train, ways[0], guessed),
        ("recall at 5, held out", held_out, ways[1], known),
        ("temperature", train, ("temperature",), ()),
        ("learning rate", train, ("learning_rate",), ()),
        ("gradient norm", train, ("gradient_norm",), ()),
    )
    figure = Figure(figsize=(13, 7), layout="constrained")
    for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        _draw_panel(axes, *panel)
    figures.save(figure, path)


def _draw_panel(
    axes: Axes,
    title: str,
    lines: list[dict[str, Any]],
    names: Sequence[str],
    chance: Sequence[float | None],
) -> None:
    """Draws the curves of some fields of the log, with their chance levels."""
    top = 0.0
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            label = {"i2t": "image to text", "t2i": "text to image"}.get(name[:3], "model")
            marker = "." if len(points) < 20 else None
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
            top = max(top, *(value for _, value in points))
    # Directions with the same chance level share a line.
    levels = sorted({level for level in chance if level is not None})
    if top:
        for place, level in enumerate(levels):
            # The legend leaves out labels that begin with "_".
            label = "_chance" if place else "chance"
            axes.axhline(level, color="grey", linestyle="--", linewidth=1, label=label)
            top = max(top, level)
    axes.set(title=title, xlabel="step")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    if "recall" in title:
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1))
    # The default limit would be too close to a curve that hardly moves.
    axes.set_ylim(0, 1.1 * top or None)
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend()


def write_report(
    workdir: AnyPath,
    evaluation: HeldOutPairs | None,
    metrics: dict[str, Any],
    chance: dict[str, float],
    held_out: dict[str, Any] | None,
    batch_size: int,
    started: float,
) -> None:
    """Draws the pictures, writes ``metrics.json`` and prints the closing table.

    Args:
        workdir: the run's directory.
        evaluation: the held-out pairs; None if there are none.
        metrics: as in ``format_table``; ``seconds`` and ``shared_captions`` are added.
        chance: as in ``format_table``.
        held_out: embeddings of the pairs, from ``HeldOutPairs.embed``.
        batch_size: pairs per global batch.
        started: ``time.perf_counter`` at the start of the run in this process.
    """
    if evaluation and held_out:
        captions = [evaluation.captions[row] for row in held_out["rows"]]
        metrics["shared_captions"] = count_shared_captions(captions, held_out["groups"])
    pictures = ["curves.png"]
    with progress.working("drawing curves and retrieved images"):
        draw_curves(workdir / "curves.png", read_log(workdir), batch_size, chance)
        if evaluation and held_out:
            pictures += ["retrieval.png", "captions.png"]
            draw_retrieval_sheet(workdir / "retrieval.png", evaluation, held_out)
            draw_captions_sheet(workdir / "captions.png", evaluation, held_out)
    metrics["seconds"] = time.perf_counter() - started
    write_whole(workdir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    print(format_table(metrics, chance))
    files = ", ".join(["checkpoints/", "logs/", "preset/", "metrics.json", *pictures])
    print(f"run directory: {workdir} ({files})")
