"""What a run shows and logs during training; it ends a run that diverges or loses data."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from align_keras import paths, progress
from align_keras.errors import InputError
from align_keras.paths import AnyPath
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.log_files import LogFiles
from align_keras.runs.skipped import LostDataError, SkippedInRun
from align_keras.runs.trackers import Track, nowhere

#: A result of each step that is not a metric: whether a worker has been asked to stop.
STOP_REQUESTED = "stop_requested"
# Short names for the bar, after the loss and the recalls.
_BAR_NAMES = {
    "accuracy": "acc",
    "temperature": "temp",
    "learning_rate": "lr",
    "gradient_norm": "grad",
    "pairs_per_second": "pairs/s",
    "images_per_second": "images/s",
}


def format_metrics(metrics: Mapping[str, float]) -> str:
    """The metrics of some steps in a few words, for the bar.

    Args:
        metrics: values by their names in the log; metrics without a short name are left out.
    """
    recalls = [metrics.get(f"{way}_recall_at_1") for way in ("i2t", "t2i")]
    words = [f"loss={metrics['loss']:.3g}"] if "loss" in metrics else []
    if None not in recalls:
        # Named so that nobody mistakes them for the recalls on held-out pairs.
        words.append("in-batch R@1 " + "/".join(f"{value:.0%}" for value in recalls))
    words += [
        f"{short}={metrics[name]:.3g}" for name, short in _BAR_NAMES.items() if name in metrics
    ]
    return " ".join(words)


class DivergedError(InputError, FloatingPointError):
    """The loss or the gradient is not a finite number.

    Attributes:
        steps: the first and the last step, from 1, between which it happened.
        metric: name of the metric in the log.
        value: the metric's mean over the steps.
    """

    def __init__(self, steps: tuple[int, int], metric: str, value: float) -> None:
        first, last = steps
        where = f"at step {last:,}" if first == last else f"between steps {first:,} and {last:,}"
        super().__init__(f"the run diverged: {metric} is {value} {where}")
        self.steps, self.metric, self.value = steps, metric, value


class TrainingLog(keras.callbacks.Callback):
    """Shows a progress bar and writes TensorBoard summaries and ``log.jsonl``.

    Metrics are means since the previous line. They stay on the device, so the host waits for them
    only at a line and in ``settle``, before an evaluation or a checkpoint. If the loss or the
    gradient is then not finite, the run ends before its weights are saved.

    Pairs per second do not include evaluation, saving, and the first steps of a process, which
    trace the graph.

    Args:
        workdir: the run's directory.
        checkpoints: the run's ``RunCheckpoints``, which also count the seconds of training.
        total_steps: total steps of the run.
        batch_size: pairs per step, over all replicas.
        log_every: number of steps per line.
        skipped: the run's ``SkippedInRun``; its count is written to the log.
        unit: what a batch holds, "pairs" or "images".
        alarms: called with the step and the metrics of each line; returns warnings to show.
        track: called with the step, the kind and the metrics of each line.
        used: called with the step of each line; gives further fields, such as ``epochs``.
    """

    def __init__(
        self,
        workdir: str | AnyPath,
        checkpoints: RunCheckpoints,
        total_steps: int,
        batch_size: int,
        log_every: int,
        skipped: SkippedInRun,
        unit: str = "pairs",
        alarms: Callable[[int, Mapping[str, float]], Iterable[str]] | None = None,
        track: Track = nowhere,
        used: Callable[[int], Mapping[str, float]] = lambda _: {},
    ) -> None:
        super().__init__()
        self.workdir = paths.path_of(workdir)
        self.checkpoints = checkpoints
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.log_every = log_every
        self.skipped, self.unit, self._alarms = skipped, unit, alarms
        self._used = used
        self.step = self._first_step = checkpoints.step
        self._files = LogFiles(self.workdir, track)
        # Totals over the settled steps since the previous line.
        self._seconds, self._timed_steps = 0.0, 0
        self._clock: tuple[float, int] | None = None
        self._unsettled: dict[str, Any] = {}
        self._settled_step, self._looked_step = self.step, -1
        # What is shown: a message about tracing until the first step ends, then the bar.
        self._shown = contextlib.ExitStack()
        self._bar: progress.Bar | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Shows that the first step is being traced."""
        self._shown.enter_context(progress.working("tracing and compiling the first step"))

    def _open_bar(self) -> progress.Bar:
        self._shown.close()
        bar = progress.Bar("training", self.total_steps, "step", self.step, stays=True)
        return self._shown.enter_context(bar)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock unless it is running."""
        if self._clock is None and self.step > self._first_step:
            self._clock = time.perf_counter(), self.step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the steps up to a batch; writes a line every ``log_every`` steps.

        Args:
            batch: the number of the last step, from 0 in this process.
            logs: metrics of the step.

        Raises:
            DivergedError: if the loss or the gradient is not finite.
            LostDataError: as in ``SkippedInRun.check``. If the weights are intact, a checkpoint has
                been saved.
        """
        self._bar = self._bar or self._open_bar()
        before, self.step = self.step, self._first_step + batch + 1
        results = logs or {}
        self._unsettled = {name: results[name] for name in results if name != STOP_REQUESTED}
        is_last = self.step == self.total_steps
        if is_last or self.step // self.log_every > before // self.log_every:
            metrics = self._settle(is_saved=False, is_last=is_last)
            self._log(metrics)
            self.model.reset_metrics()
        self._bar.done = self.step

    def settle(self) -> None:
        """Waits for the steps so far, before an evaluation or a checkpoint.

        Every worker must call it after the same steps.

        Raises:
            DivergedError: as in ``on_train_batch_end``.
            LostDataError: as in ``on_train_batch_end``.
        """
        self._settle(is_saved=True, is_last=False)

    def _settle(self, is_saved: bool, is_last: bool) -> dict[str, float]:
        """Like ``settle``; returns the metrics since the last line, empty directly after one."""
        metrics = self._await()
        if self._looked_step == self.step:
            return metrics  # checking many files twice would take long
        try:
            self.skipped.check(self.step, is_saved, is_last, self.checkpoints.saved_step)
        except LostDataError as error:
            if metrics:
                self._log(metrics)
            self.close()
            if error.weights_are_sound:
                self._save()
            raise
        if is_saved or is_last:
            self._looked_step = self.step
        return metrics

    def _await(self) -> dict[str, float]:
        """Waits for the steps so far; returns their metrics since the last line, if finite."""
        found = {name: float(np.mean(value)) for name, value in self._unsettled.items()}
        # A gradient that is not finite spoils the weights, which the loss shows only a step later.
        for name in ("loss", "gradient_norm"):
            if not np.isfinite(found.get(name, 0.0)):
                raise DivergedError((self._settled_step + 1, self.step), name, found[name])
        self._stop_clock()
        self.checkpoints.count_steps(self.step)
        self._settled_step = self.step
        return found

    def _stop_clock(self) -> None:
        """Adds the steps since the start of the clock to the run's totals."""
        if self._clock is None:
            return
        start, step = self._clock
        seconds, steps = time.perf_counter() - start, self.step - step
        self._clock = None
        self._seconds += seconds
        self._timed_steps += steps
        self.checkpoints.seconds.assign_add(seconds)
        self.checkpoints.timed_pairs.assign_add(steps * self.batch_size)

    def _log(self, metrics: dict[str, float]) -> None:
        """Writes a line and shows it in the bar."""
        self._unsettled = {}
        shown: dict[str, Any] = {**metrics, f"skipped_{self.unit}": self.skipped.count}
        if self._timed_steps:
            shown[f"{self.unit}_per_second"] = self.batch_size * self._timed_steps / self._seconds
        self._seconds, self._timed_steps = 0.0, 0
        self.write("train", {**shown, **self._used(self.step)})
        if self._bar is not None:
            self._bar.note = format_metrics(shown)
        for alarm in self._alarms(self.step, metrics) if self._alarms else ():
            self.tell(alarm)

    def tell(self, line: str) -> None:
        """Shows a line above the bar."""
        progress.tell(line)

    def save(self) -> None:
        """Saves a checkpoint; raises like ``save_now``."""
        self._settle_alone()
        self._save()

    def _settle_alone(self) -> dict[str, float]:
        """Like ``_settle``, but never communicates: other workers may be at another step."""
        return self._settle(True, False) if self.skipped.is_alone else self._await()

    def _save(self) -> None:
        self.flush()
        self.skipped.keep(self.step)
        with progress.working("saving the checkpoint"):
            self.checkpoints.save()

    def save_now(self) -> None:
        """Saves a checkpoint of the current step, and logs the metrics since the last line.

        Raises:
            DivergedError: as in ``on_train_batch_end``.
            LostDataError: as in ``on_train_batch_end``, if there is only one worker.
        """
        if metrics := self._settle_alone():
            self._log(metrics)
        self._save()

    def close(self) -> None:
        """Closes the bar and writes everything that is still in memory."""
        self._shown.close()
        self.flush()

    def flush(self) -> None:
        """Writes the lines and summaries that are held in memory for a remote directory."""
        self._files.flush()

    def write(self, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes metrics of this step, except None values; ``kind`` is ``train`` or ``eval``."""
        self._files.write(self.step, kind, metrics)


class EveryNSteps(keras.callbacks.Callback):
    """Calls ``action()`` after every ``interval`` steps of the run, and after the last one.

    The last step of an execution must not exceed the next multiple of the interval.
    """

    def __init__(
        self, interval: int, first_step: int, last_step: int, action: Callable[[], Any]
    ) -> None:
        super().__init__()
        self.interval = interval
        self.first_step = first_step
        self.last_step = last_step
        self.action = action

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Calls the action when it is due; ``batch`` is the number of the last step, from 0."""
        step = self.first_step + batch + 1
        if step % self.interval == 0 or step == self.last_step:
            self.action()
