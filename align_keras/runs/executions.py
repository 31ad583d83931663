"""How many steps the device runs before it returns to the host, and which steps to profile."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from align_keras import distribution
from align_keras.paths import AnyPath
from align_keras.runs.setting_values import read_steps

# Default maximum. It is small because a signal has to wait for the end of an execution.
_MOST_STEPS = 32


@dataclasses.dataclass(frozen=True)
class Executions:
    """Steps that the device runs in one execution: Keras's ``steps_per_execution``."""

    asked: int | None = None
    """Steps per execution; None for 1 on a CPU and up to 32 elsewhere."""
    profile: str = ""
    """``START:STOP``, the first and last step of a trace; empty for no trace."""

    def steps(self, intervals: Sequence[int], first: int, last: int, strategy: Any) -> int:
        """Steps per execution, which divide the intervals and the total number of steps.

        Each log line, checkpoint and evaluation, and the end of the run, thus come at the end of an
        execution.

        Args:
            intervals: steps between lines, checkpoints and evaluations.
            first: number of steps already done.
            last: total steps of the run.
            strategy: the run's strategy.
        """
        common = math.gcd(first, last, *intervals)
        if self.asked is not None:
            return math.gcd(self.asked, common)
        if distribution.is_on_cpu(strategy):
            return 1
        return max(steps for steps in range(1, _MOST_STEPS + 1) if common % steps == 0)

    def profilers(
        self, first_step: int, steps: int, folder: AnyPath
    ) -> list[keras.callbacks.Callback]:
        """The callback that writes the trace, if a trace is requested.

        Args:
            first_step: number of steps already done.
            steps: steps per execution.
            folder: folder of TensorBoard's logs.
        """
        if not self.profile:
            return []
        start, stop = read_steps(self.profile)
        return [Profiler(start - first_step, stop - first_step, steps, folder)]


class Profiler(keras.callbacks.Callback):
    """Writes a trace of some executions for TensorBoard's profile plugin.

    Args:
        start: the first step of the trace, from 1 in this process.
        stop: the last step of the trace.
        steps: steps per execution; the trace is extended to complete executions.
        folder: folder of TensorBoard's logs.
    """

    def __init__(self, start: int, stop: int, steps: int, folder: AnyPath) -> None:
        super().__init__()
        self.start, self.stop, self.steps, self.folder = start, stop, steps, folder
        self.is_active = False

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the trace when it is due; ``batch`` is the execution's first step, from 0."""
        if not self.is_active and batch + 1 <= self.stop and batch + self.steps >= self.start:
            tf.profiler.experimental.start(str(self.folder))
            self.is_active = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the trace when it is due."""
        if self.is_active and batch + 1 >= self.stop:
            for value in (logs or {}).values():
                np.asarray(value)  # waits for the device
            self.on_train_end()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends the trace if it is still running."""
        if self.is_active:
            tf.profiler.experimental.stop()
            self.is_active = False
