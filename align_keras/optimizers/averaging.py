"""Evaluates a model with the moving average of its weights."""

import contextlib
from collections.abc import Iterator

import keras

from align_keras import keras_internals
from align_keras.optimizers.wrapping import inner_optimizer


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Within, a compiled model has the moving average of its weights, if its optimizer keeps one.

    Afterwards it has its own again, to the bit; ``keras.callbacks.SwapEMAWeights`` swaps by
    adding and subtracting, which rounds. Batch norm's statistics are averages already.
    """
    optimizer = inner_optimizer(model.optimizer)
    # The average begins with the first step.
    if not optimizer.use_ema or not int(optimizer.iterations.numpy()):
        yield
        return
    own = [variable.numpy() for variable in model.trainable_variables]
    averages = keras_internals.averages(optimizer)
    try:
        for variable, average in zip(model.trainable_variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)
