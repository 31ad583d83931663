"""The moving average of a model's weights and of its batch norm statistics."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from align_keras import keras_internals
from align_keras.layers.batch_norm import moving_statistics
from align_keras.optimizers.wrapping import inner_optimizer


def average_statistics_too(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer with weight averages also keep averages of batch norm statistics.

    The statistics of the current weights do not fit averaged weights, which lag behind.
    EfficientNet's authors average both in the same way (their ``ema_vars``). Keras's optimizers
    average only trainable weights. The averages are variables of the optimizer, so that checkpoints
    and ``.keras`` files include them.

    Args:
        model: the model with its weights.
        optimizer: the optimizer that will train the weights; it is built. Without ``use_ema``
            nothing is added.
    """
    inner = inner_optimizer(optimizer)
    if not inner.use_ema or hasattr(inner, "statistics_averages"):
        return
    # Built first, since an optimizer stores its variables in the order of their creation.
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    inner.statistics_averages = [
        inner.add_variable(
            variable.shape,
            dtype=variable.dtype,
            # The value is the same on every replica.
            aggregation="only_first_replica",
            name=f"{variable.path.replace('/', '_')}_average",
        )
        for variable in moving_statistics(model)
    ]


def update_statistics(model: keras.Model, steps_before: tf.Tensor) -> None:
    """Updates the averages of the statistics, as the optimizer updates those of the weights.

    Args:
        model: the compiled model, after a training step.
        steps_before: number of steps of the optimizer before that step. A step that overflowed
            float16 does not change that number, and updates no average.
    """
    optimizer = inner_optimizer(model.optimizer)
    if not optimizer.use_ema:
        return
    steps = tf.cast(tf.convert_to_tensor(optimizer.iterations), steps_before.dtype)
    # The first step sets the average to the current value, as in Keras.
    momentum = tf.where(steps_before == 0, 0.0, optimizer.ema_momentum)
    momentum = tf.where(steps > steps_before, momentum, 1.0)
    statistics = moving_statistics(model)
    moving = {id(variable) for variable in moving_statistics(model, moving_only=True)}
    for variable, average in zip(statistics, optimizer.statistics_averages, strict=True):
        value = tf.convert_to_tensor(variable)
        if id(variable) not in moving:
            average.assign(value)  # an average of equal values may round
            continue
        average.assign(momentum * tf.convert_to_tensor(average) + (1.0 - momentum) * value)


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Inside the block, a compiled model has averaged weights, if its optimizer keeps averages.

    The batch norm statistics are replaced by their averages too. Afterwards the model has exactly
    its own weights again. ``keras.callbacks.SwapEMAWeights`` swaps by adding and subtracting, which
    rounds.
    """
    optimizer = inner_optimizer(model.optimizer)
    # The average exists from the first step on.
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
