"""The moving average of a model: of its weights, and of batch norm's statistics with them."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from align_keras import keras_internals
from align_keras.layers.batch_norm import moving_statistics
from align_keras.optimizers.wrapping import inner_optimizer


def average_statistics_too(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer that averages weights keep averages of batch norm's statistics as well.

    The statistics of the current weights do not fit averaged ones, which lag behind. EfficientNet's
    authors average both alike (their ``ema_vars``); Keras's optimizers know trainable weights only.
    The averages are variables of the optimizer, so that checkpoints and ``.keras`` files hold them.

    Args:
        model: with its weights.
        optimizer: that will train them; one without ``use_ema`` is left alone. It is built.
    """
    inner = inner_optimizer(optimizer)
    if not inner.use_ema or hasattr(inner, "statistics_averages"):
        return
    # First, since an optimizer keeps its variables in the order in which they are made.
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    inner.statistics_averages = [
        inner.add_variable(
            variable.shape,
            dtype=variable.dtype,
            # The same on every replica, where they are moved.
            aggregation="only_first_replica",
            name=f"{variable.path.replace('/', '_')}_average",
        )
        for variable in moving_statistics(model)
    ]


def update_statistics(model: keras.Model, steps_before: tf.Tensor) -> None:
    """Moves the averages of the statistics as the optimizer has moved those of the weights.

    Args:
        model: compiled, after a training step.
        steps_before: the optimizer's number of steps before that step. A step that overflowed
            float16 has not changed it, and moves no average.
    """
    optimizer = inner_optimizer(model.optimizer)
    if not optimizer.use_ema:
        return
    steps = tf.cast(tf.convert_to_tensor(optimizer.iterations), steps_before.dtype)
    # The first step sets the average, as Keras does.
    momentum = tf.where(steps_before == 0, 0.0, optimizer.ema_momentum)
    momentum = tf.where(steps > steps_before, momentum, 1.0)
    statistics = moving_statistics(model)
    moving = {id(variable) for variable in moving_statistics(model, moving_only=True)}
    for variable, average in zip(statistics, optimizer.statistics_averages, strict=True):
        value = tf.convert_to_tensor(variable)
        if id(variable) not in moving:
            average.assign(value)  # their mean may round
            continue
        average.assign(momentum * tf.convert_to_tensor(average) + (1.0 - momentum) * value)


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Inside, a compiled model has the average of its weights, if its optimizer keeps one.

    Batch norm's statistics are the averages that belong to them. Afterwards the model has its own
    again, to the bit; ``keras.callbacks.SwapEMAWeights`` swaps by adding and subtracting, which
    rounds.
    """
    optimizer = inner_optimizer(model.optimizer)
    # The average begins with the first step.
    if not optimizer.use_ema or not int(optimizer.iterations.numpy()):
        yield
        return
    variables = list(keras_internals.trained_variables(optimizer))
    averages = keras_internals.averages(optimizer)
    if hasattr(optimizer, "statistics_averages"):
        variables += moving_statistics(model)
        averages = [*averages, *optimizer.statistics_averages]
    own = [variable.numpy() for variable in variables]
    try:
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
