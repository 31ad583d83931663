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
    """Trains a compiled model from the step of its checkpoint to the last step.

    The host waits for the device only when ``TrainingLog`` does. A signal ends training with a
    checkpoint, after the current execution or during an evaluation. Before the first step of this
    process, whose tracing may take minutes, a signal ends training at once.

    Args:
        model: the model; trained in place.
        dataset: endless distributed batches, starting at that step.
        log: log, which holds the first and the last step.
        actions: pairs of an interval in steps and a function, which is called after each interval
            and after the last step.
        if_diverged: remedy for a diverged run; names settings as ``<batch_size>``.
        executions: steps per execution, and which steps to profile; None for the default of the
            device and no profile.
        until: the step at which to end; None for the run's last step.

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
            # Otherwise `predict` would take several batches at a time.
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
                stop,  # before an evaluation, which a resumed run repeats
                *(EveryNSteps(every, first, last, settled(act)) for every, act in actions),
                keras.callbacks.LambdaCallback(on_train_batch_end=stop.check_alone),
            ]
            # Keras's own function waits for each step to find out whether the data have ended.
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
            # Before its first step, this process has nothing to save.
            if stop.has_stepped:
                with _advising(if_diverged):
                    log.save_now()
            raise
        finally:
            for profiler in profilers:
                profiler.on_train_end()
            model.steps_per_execution = 1
            model.train_function = None
            # Otherwise the bar would be drawn once more, after the command's last line.
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
    """Passes on the results of a step unread; Keras would read them and wait for the device."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by ``fit`` after each execution."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


class StopOnSignal(keras.callbacks.Callback):
    """Ends training after a step if a signal has asked this process or another worker to stop.

    All workers must end after the same step. Every step already sums metrics over the workers
    (``ContrastiveModel.exchanged``). Each worker adds a float that is 1 if the worker has been
    asked to stop. All workers thus see the same sum after the same step. The host reads it two
    executions later, without waiting.

    Args:
        log: the log; it is settled before training ends.
        workers: number of processes that train together.
        deferred: holds ``signals.deferred`` from the first step on.
    """

    def __init__(self, log: TrainingLog, workers: int, deferred: contextlib.ExitStack) -> None:
        super().__init__()
        self.log = log
        self.workers = workers
        self.deferred = deferred
        self.has_stepped = False
        self._unread: collections.deque[Any] = collections.deque()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the model exchange whether a worker has been asked to stop."""
        if self.workers > 1:
            self._stop_requested = tf.Variable(0.0, trainable=False)
            self.model.exchanged = lambda: {STOP_REQUESTED: self._stop_requested.read_value()}

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sends a request to stop to the other workers, with the next step."""
        if self.workers > 1 and signals.stop_requested():
            self._stop_requested.assign(1.0)

    def defer(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Defers signals after the first step, because from then on there is a state to save."""
        if not self.has_stepped:
            self.deferred.enter_context(signals.deferred())
            self.has_stepped = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises ``Interrupted`` if training must end here."""
        if self.workers == 1:
            signals.check()
            return
        self._unread.append((logs or {})[STOP_REQUESTED])
        if len(self._unread) > _AHEAD and np.any(self._unread.popleft()):
            self.log.settle()  # all workers are at the same step here
            signals.check()
            raise signals.Interrupted(signal.SIGTERM, "another worker was asked to stop")

    def check_alone(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called last at the end of a step, so that a single worker ends without another step."""
        if self.workers == 1:
            signals.check()
