"""What a run shows while it trains: progress bar, TensorBoard, a log, pictures."""

import json
import sys
import textwrap
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tqdm
from matplotlib import ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Short names for the bar.
_BAR_NAMES = {
    "loss": "loss",
    "i2t_recall_at_1": "i2t",
    "t2i_recall_at_1": "t2i",
    "temperature": "temp",
    "learning_rate": "lr",
    "gradient_norm": "grad",
    "pairs_per_second": "pairs/s",
}


class TrainingLog(keras.callbacks.Callback):
    """Shows a progress bar and writes TensorBoard summaries and ``log.jsonl``.

    Metrics are means since the line before. Pairs per second leave out evaluation, saving
    and the first step of a process, which traces the graph.

    Args:
        workdir: the run's directory.
        checkpoints: the run's ``RunCheckpoints``; holds the seconds spent.
        total_steps: of the whole run.
        batch_size: pairs a step, over all replicas.
        log_every: steps a line.
    """

    def __init__(self, workdir, checkpoints, total_steps, batch_size, log_every):
        super().__init__()
        self.workdir = Path(workdir)
        self.checkpoints = checkpoints
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.log_every = log_every
        self.step = checkpoints.step
        self._writer = tf.summary.create_file_writer(str(self.workdir / "logs"))
        self._seconds = []

    def on_train_begin(self, logs=None):
        """Opens the bar."""
        in_terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=self.total_steps,
            initial=self.step,
            unit="step",
            dynamic_ncols=in_terminal,
            mininterval=0.2 if in_terminal else 10.0,
        )
        self._traced = False

    def on_train_batch_begin(self, batch, logs=None):
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Counts a step; every ``log_every`` steps writes a line."""
        self.step += 1
        if self._traced:
            self._seconds.append(time.perf_counter() - self._start)
        self._traced = True
        if self.step % self.log_every == 0 or self.step == self.total_steps:
            metrics = {name: float(value) for name, value in logs.items()}
            if self._seconds:
                metrics["pairs_per_second"] = self.batch_size / float(np.mean(self._seconds))
                self.account()
            self.write("train", metrics)
            self._bar.set_postfix_str(
                " ".join(
                    f"{short}={metrics[name]:.3g}"
                    for name, short in _BAR_NAMES.items()
                    if name in metrics
                ),
                refresh=False,
            )
            self.model.reset_metrics()
        self._bar.update(1)

    def account(self):
        """Adds the steps since the last call to the run's totals, which checkpoints keep."""
        self.checkpoints.seconds.assign_add(float(np.sum(self._seconds)))
        self.checkpoints.timed_pairs.assign_add(len(self._seconds) * self.batch_size)
        self._seconds = []

    def on_train_end(self, logs=None):
        """Closes the bar."""
        self._bar.close()

    def write(self, kind, metrics):
        """Writes metrics of this step, ``kind`` being ``train`` or ``eval``; None is left out."""
        metrics = {name: value for name, value in metrics.items() if value is not None}
        with self._writer.as_default(step=self.step):
            for name, value in metrics.items():
                tf.summary.scalar(f"{kind}/{name}", value)
        self._writer.flush()
        line = {"step": self.step, "kind": kind, **metrics}
        with (self.workdir / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


class EveryNSteps(keras.callbacks.Callback):
    """Calls ``action()`` after every ``interval`` steps, counted from the run's start."""

    def __init__(self, interval, first_step, action):
        super().__init__()
        self.interval = interval
        self.step = first_step
        self.action = action

    def on_train_batch_end(self, batch, logs=None):
        """Counts a step, and acts if it is time."""
        self.step += 1
        if self.step % self.interval == 0:
            self.action()


def read_log(workdir):
    """The lines of ``log.jsonl``, later ones for the same step and kind in place of earlier."""
    path = Path(workdir) / "log.jsonl"
    lines = {}
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # cut off when the run was killed
                continue
            lines[line["kind"], line["step"]] = line
    return sorted(lines.values(), key=lambda line: line["step"])


def draw_curves(workdir):
    """Draws loss, recalls, temperature and learning rate over the steps: ``curves.png``."""
    lines = read_log(workdir)
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
        for name, source in curves:
            points = [(line["step"], line[name]) for line in source if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else None)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(["image to text", "text to image"][: len(axes.lines)])
    _save(figure, Path(workdir) / "curves.png")


def draw_retrievals(path, captions, images, right, scores):
    """Draws captions with the images they retrieve, best first; a right one is framed green.

    Args:
        path: of the PNG.
        captions: strings, one a row.
        images: ``(captions, columns, size, size, 3)``, -1 .. 1.
        right: bool, ``(captions, columns)``.
        scores: similarities, ``(captions, columns)``.
    """
    rows, columns = right.shape
    figure = Figure(figsize=(2.6 + 1.4 * columns, 1.65 * rows), layout="constrained")
    grid = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=[1.9] + [1] * columns)
    for row in range(rows):
        caption = textwrap.fill(textwrap.shorten(captions[row], 110), 26)
        # A dollar sign would start a formula.
        caption = caption.replace("$", r"\$")
        grid[row, 0].axis("off")
        grid[row, 0].text(0, 0.5, caption, va="center", fontsize=9)
        for column in range(columns):
            axes = grid[row, column + 1]
            axes.imshow(np.clip(images[row, column] * 0.5 + 0.5, 0, 1))
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{scores[row, column]:.2f}", fontsize=8)
            axes.spines[:].set(
                color="tab:green" if right[row, column] else "lightgrey",
                linewidth=4 if right[row, column] else 1,
            )
    _save(figure, path)


def _save(figure, path):
    # Not pyplot: it keeps every figure and looks for a display.
    FigureCanvasAgg(figure).print_png(str(path))
