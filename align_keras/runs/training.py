"""The training loop that pretraining and fine-tuning share."""

import collections
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from align_keras import distribution, keras_internals, signals
from align_keras.errors import InputError
from align_keras.runs.executions import Executions
from align_keras.runs.log import STOP_REQUESTED, DivergedError, EveryNSteps, TrainingLog

# The host reads results this many executions later, when the device has finished them.
_AHEAD = 2


def train(
    model: keras.Model,
    dataset: Any,
    log: TrainingLog,
    actions: list[tuple[int, Callable[[], Any]]],
    if_diverged: str,
    executions: Executions | None = None,
    until: int | None = None,
) -> None:
    """Trains a compiled model from the step of its checkpoint to the last one.

    The host waits for steps only where ``TrainingLog`` does. A signal ends training with a
    checkpoint, after the current execution or during an evaluation. Before the first step of this
    process, whose tracing may take minutes, it ends training at once.

    Args:
        model: trained in place.
        dataset: endless batches, distributed, from that step on.
        log: knows the first and the last step.
        actions: intervals in steps, with functions that are also called after the last step.
        if_diverged: remedy for a run that diverged; names settings as ``<batch_size>``.
        executions: steps per execution, and which steps to profile; None for the default of the
            device and no profile.
        until: the step to end at; None for the run's last one.

    Raises:
        DivergedError: if the loss or the gradient is not finite.
        InputError: if the batches end before the last step.
        Interrupted: after a signal.
    """
    first, last = log.step, until or log.total_steps
    intervals = [log.log_every, *(interval for interval, _ in actions)]
    executions = executions or Executions()
    steps = executions.steps(intervals, first, last, model.distribute_strategy)
    model.steps_per_execution = steps

    def settled(action: Callable[[], Any]) -> Callable[[], None]:
        def act() -> None:
            log.settle()
            # `predict` would take several batches at a time.
            model.steps_per_execution = 1
            try:
                action()
            finally:
                model.steps_per_execution = steps

        return act

    profilers = executions.profilers(first, steps, log.workdir / "logs")
    with contextlib.ExitStack() as deferred:
        stop = StopOnSignal(log, distribution.worker_place(model.distribute_strategy)[1], deferred)
        try:
            callbacks = [
                *profilers,
                keras.callbacks.LambdaCallback(on_train_batch_end=stop.defer),
                log,
                stop,  # before an evaluation: the run repeats it when it is resumed
                *(EveryNSteps(every, first, last, settled(act)) for every, act in actions),
                keras.callbacks.LambdaCallback(on_train_batch_end=stop.check_alone),
            ]
            # Keras's own waits for each step to learn whether the data have ended.
            on_cpu = distribution.is_on_cpu(model.distribute_strategy)
            if steps > 1 or not (on_cpu or model.run_eagerly):
                model.train_function = keras_internals.train_function_of(model, steps)
            with _advising(if_diverged):
                model.fit(
                    dataset,
                    steps_per_epoch=last - first,
                    callbacks=_UnreadLogs(callbacks, add_history=True, model=model),
                    shuffle=False,
                    verbose=0,
                )
        except signals.Interrupted:
            # Until now, this process has nothing to save.
            if stop.has_stepped:
                with _advising(if_diverged):
                    log.save_now()
            raise
        finally:
            for profiler in profilers:
                profiler.on_train_end()
            model.steps_per_execution = 1
            model.train_function = None
            # Otherwise it would be drawn once more, after the line that the command ends with.
            log.close()
    if log.step < last:
        # Keras ends training with only a warning if a step raises OutOfRangeError.
        raise InputError(
            f"training ended at step {log.step:,} of {last:,}",
            remedy="the same command resumes; a warning above may name the cause",
        )


@contextlib.contextmanager
def _advising(remedy: str) -> Iterator[None]:
    """Adds a remedy to a ``DivergedError``."""
    try:
        yield
    except DivergedError as error:
        error.remedy = remedy
        raise


class _UnreadLogs(keras.callbacks.CallbackList):
    """Passes the results of a step on unread: Keras would wait for the device and read them."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by ``fit`` after each execution."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


class StopOnSignal(keras.callbacks.Callback):
    """Ends training after a step when a signal has asked the process, or another worker, to stop.

    All workers must end after the same step. Every step already sums metrics over the workers
    (``ContrastiveModel.exchanged``); each worker adds one float that says whether it was asked to
    stop, so all see the same sum after the same step. The host reads it two executions later,
    without waiting.

    Args:
        log: is closed by the step.
        workers: number of processes that train together.
        deferred: from the first step on, holds ``signals.deferred``.
    """

    def __init__(self, log: TrainingLog, workers: int, deferred: contextlib.ExitStack) -> None:
        super().__init__()
        self.log = log
        self.workers = workers
        self.deferred = deferred
        self.has_stepped = False
        self._unread: collections.deque[Any] = collections.deque()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Lets the model exchange whether a worker was asked to stop."""
        if self.workers > 1:
            self._stop_requested = tf.Variable(0.0, trainable=False)
            self.model.exchanged = lambda: {STOP_REQUESTED: self._stop_requested.read_value()}

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells the other workers with the next step."""
        if self.workers > 1 and signals.stop_requested():
            self._stop_requested.assign(1.0)

    def defer(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called at the end of a step before all else: from here on there is something to keep."""
        if not self.has_stepped:
            self.deferred.enter_context(signals.deferred())
            self.has_stepped = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises ``Interrupted`` if it is time to end."""
        if self.workers == 1:
            signals.check()
            return
        self._unread.append((logs or {})[STOP_REQUESTED])
        if len(self._unread) > _AHEAD and np.any(self._unread.popleft()):
            self.log.settle()  # here every worker is at the same step
            signals.check()
            raise signals.Interrupted(signal.SIGTERM, "another worker was asked to stop")

    def check_alone(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after all else of a step: one worker need not wait for the next one."""
        if self.workers == 1:
            signals.check()
