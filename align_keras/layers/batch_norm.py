"""Batch normalisation in one fused op; Keras 3 needs a dozen passes over the activations."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import tensorflow as tf

from align_keras import distribution, keras_internals

#: Precisions in which a batch norm does not keep its weights.
HALF = ("bfloat16", "float16")

_LOCAL_STATISTICS = contextvars.ContextVar("local_statistics", default=False)


@contextlib.contextmanager
def local_statistics() -> Iterator[None]:
    """Inside the block, each replica uses its own statistics, even if they are synchronised.

    Replicas cannot sum inside a TensorFlow loop, such as the loop over micro-batches.
    """
    token = _LOCAL_STATISTICS.set(True)
    try:
        yield
    finally:
        _LOCAL_STATISTICS.reset(token)


@keras.saving.register_keras_serializable(package="align_keras")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with TensorFlow's fused kernel; numbers, arguments and weights are the same.

    EfficientNet trains about a quarter faster with it on a CPU (``benchmarks/README.md``). If
    statistics are synchronised over several replicas, Keras's own computation is used, since the
    kernel sees only one replica's share. The same holds for what the kernel does not support, such
    as float64.

    With ``frozen_statistics = True``, training normalises by the moving statistics and does not
    change them, while scale and offset learn. This is meant for fine-tuning. ``trainable = False``
    would also freeze scale and offset.

    With ``shift_only = True`` the layer only adds ``beta``. This is meant for inference, after its
    factor has been folded into the preceding kernel (``align_keras.export.folding``).

    The weights are float32 also under the policies ``bfloat16`` and ``float16``, since the kernel
    supports no other type. Besides, an average in half precision no longer changes if a step
    changes it by less than 2 ** -9 of its value.

    Input and output: ``(batch, height, width, channels)``.
    """

    frozen_statistics = False
    shift_only = False

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates scale, offset and moving statistics."""
        if self.variable_dtype in HALF:
            self.dtype_policy = f"mixed_{self.variable_dtype}"
        super().build(input_shape)

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalises a batch; in training by its own statistics, which update the moving ones."""
        if self.shift_only:
            return tf.nn.bias_add(inputs, tf.cast(tf.convert_to_tensor(self.beta), inputs.dtype))
        training = bool(training) and self.trainable and not self.frozen_statistics
        _, replicas = distribution.replica_place()
        synchronized = training and self.synchronized and replicas > 1
        synchronized = synchronized and not _LOCAL_STATISTICS.get()
        fusable = self.axis in (-1, 3) and len(inputs.shape) == 4 and self.scale and self.center
        fusable &= inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
        if synchronized or not fusable or self.renorm or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            None if training else tf.convert_to_tensor(self.moving_mean),
            None if training else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The kernel divides by the number of values minus one, Keras by the number of values.
            count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
            variance *= (count - 1.0) / count
            self._average(self.moving_mean, mean)
            self._average(self.moving_variance, variance)
        return outputs

    def _average(self, moving, value):
        moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


def moves(norm: keras.layers.BatchNormalization) -> bool:
    """Whether training changes a batch norm's statistics."""
    return norm.trainable and not getattr(norm, "frozen_statistics", False)


def moving_statistics(layer: keras.layers.Layer, moving_only: bool = False) -> list[keras.Variable]:
    """The moving means and variances of every batch norm inside a layer or model.

    These are the weights of a batch norm other than scale and offset.

    Args:
        layer: a built layer or model.
        moving_only: whether to leave out frozen statistics.
    """
    return [
        weight
        for norm in keras_internals.layers_of(layer)
        if isinstance(norm, keras.layers.BatchNormalization) and (moves(norm) or not moving_only)
        for weight in norm.weights
        if weight is not norm.gamma and weight is not norm.beta
    ]


def average_statistics(layer: keras.layers.Layer) -> None:
    """Gives every replica the mean of the moving statistics, which Keras updates separately.

    Otherwise each replica would embed with statistics of its own share of the data, and a
    checkpoint would hold those of one replica.
    """
    _, replicas = distribution.replica_place()
    if replicas == 1:
        return
    # A mean of equal values may round, so frozen statistics are left unchanged.
    variables = moving_statistics(layer, moving_only=True)
    sums = distribution.sum_replicas([tf.identity(variable.value) for variable in variables])
    for variable, total in zip(variables, sums, strict=True):
        variable.assign(total / replicas)
