"""Recomputes parts of a tower in the backward pass instead of keeping their activations."""

from collections.abc import Callable

import keras
import tensorflow as tf


def rematerialized(
    part: keras.layers.Layer,
    inputs: tf.Tensor,
    call: Callable[..., tf.Tensor] | None = None,
    **others,
) -> tf.Tensor:
    """Calls a layer or model in training mode and keeps only its inputs for the backward pass.

    On TensorFlow, ``keras.RematScope`` would draw other dropout masks in the second run and update
    the averages of batch norm twice. Here both runs begin with the same state, and only the first
    run changes it.

    Args:
        part: a built Keras layer or model with one output.
        inputs: a float tensor, ``(batch, ...)``.
        call: a function that runs the part's layers in another way, with the same arguments;
            ``None`` to call the part itself.
        **others: further arguments of the call that have no gradient, such as masks.

    Returns:
        The output, differentiable with respect to ``inputs`` and the part's trainable weights.
    """
    state = part.non_trainable_variables
    weights = part.trainable_variables
    count = len(weights)

    def run(inputs, weights, values):
        mapping = list(zip([*part.trainable_variables, *state], [*weights, *values], strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = (call or part)(inputs, training=True, **others)
        return outputs, [scope.get_current_value(variable) for variable in state]

    @tf.custom_gradient
    def run_twice(inputs, *variables):
        variables = list(variables)
        outputs, after = run(inputs, variables[:count], variables[count:])

        def gradient(d_outputs, *_):
            # Neither XLA nor the graph optimizer may merge this run with the first one or start it
            # early: it has to wait for the gradient.
            wait = _zero_after(d_outputs)
            again = [inputs + tf.cast(wait, inputs.dtype), *variables[:count]]
            with tf.GradientTape() as tape:
                tape.watch(again)
                outputs, _ = run(again[0], again[1:], variables[count:])
            gradients = tape.gradient(
                outputs, again, d_outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return [*gradients, *([None] * len(state))]

        return (outputs, *after), gradient

    values = [tf.convert_to_tensor(variable.value) for variable in (*weights, *state)]
    outputs, *after = run_twice(inputs, *values)
    for variable, value in zip(state, after, strict=True):
        variable.assign(value)
    return outputs


def _zero_after(value):
    """A float32 0 that depends on ``value``, so that it is only known afterwards."""
    first = tf.cast(tf.reshape(value, [-1])[0], tf.float32)
    return tf.where(tf.equal(first, first), 0.0, float("nan"))
