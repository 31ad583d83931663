"""The training loop that pretraining and fine-tuning share."""

from collections.abc import Callable
from typing import Any

import keras

from align_keras.runs.log import DivergedError, EveryNSteps, TrainingLog


def train(
    model: keras.Model,
    dataset: Any,
    log: TrainingLog,
    actions: list[tuple[int, Callable[[], Any]]],
    if_diverged: str,
) -> None:
    """Trains a compiled model from the step of its checkpoint to the last one.

    Args:
        model: trained in place.
        dataset: endless batches, distributed, from that step on.
        log: knows the first and the last step.
        actions: intervals in steps, and what is called at each and after the last step.
        if_diverged: what to do about a run that diverged; names settings as ``<batch_size>``.

    Raises:
        DivergedError: if the loss or the gradient is not finite.
    """
    first, last = log.step, log.total_steps
    try:
        model.fit(
            dataset,
            steps_per_epoch=last - first,
            callbacks=[
                log,
                *(EveryNSteps(interval, first, last, action) for interval, action in actions),
            ],
            shuffle=False,
            verbose=0,
        )
    except DivergedError as error:
        error.remedy = if_diverged
        raise
