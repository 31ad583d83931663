"""Batch normalisation in one fused op; Keras 3 needs a dozen passes over the activations."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import numpy as np
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

    EfficientNet trains about a quarter faster with it on a CPU (``benchmarks/README.md``). The
    kernel sees only one replica's share. Statistics that are synchronised over several replicas
    are therefore computed without it, with one sum over the replicas, where Keras needs three. What
    the kernel does not support, such as float64, is left to Keras.

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
        training = self._uses_batch(training)
        fusable = self.axis in (-1, 3) and len(inputs.shape) == 4 and self.scale and self.center
        fusable &= inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
        if not fusable or self.renorm or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        if training and self._is_shared():
            return self._normalize(inputs)
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
            self._update(mean, variance)
        return outputs

    def call_with_borders(
        self, inputs: tf.Tensor, left: int, right: int, training: bool
    ) -> tf.Tensor:
        """Normalises a batch whose outer columns do not count for its statistics.

        Args:
            inputs: ``(batch, height, width, channels)``, in any precision.
            left: number of columns at the left edge that do not count.
            right: the same for the right edge.
            training: as for a call.

        Raises:
            ValueError: if the layer uses renormalisation (``renorm``).
        """
        if self.renorm:
            raise ValueError(f"{self.name} has renorm, which cannot leave out columns")
        if not self._uses_batch(training):
            return self(inputs, training=training)
        with tf.name_scope(self.name):
            counts = np.ones([inputs.shape[2], 1], self.variable_dtype)
            counts[:left] = counts[inputs.shape[2] - right :] = 0.0
            return self._normalize(inputs, counts)

    def _uses_batch(self, training):
        return bool(training) and self.trainable and not self.frozen_statistics

    def _is_shared(self):
        """Whether all replicas share their statistics."""
        _, replicas = distribution.replica_place()
        return self.synchronized and replicas > 1 and not _LOCAL_STATISTICS.get()

    def _normalize(self, inputs, counts=None):
        """Normalises by the statistics of the columns with a count of 1, without the kernel."""
        values = tf.cast(inputs, self.variable_dtype)  # never half precision, see `build`
        weights = (
            None if one is None else tf.convert_to_tensor(one) for one in (self.beta, self.gamma)
        )
        mean, variance = _statistics(values, counts, self._is_shared())
        self._update(mean, variance)
        outputs = tf.nn.batch_normalization(
            values, mean, variance, *weights, variance_epsilon=self.epsilon
        )
        return tf.cast(outputs, inputs.dtype)

    def _update(self, mean, variance):
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


def _statistics(values, counts, shared):
    """The mean and variance of each channel, on all replicas if ``shared``.

    The variance is computed from the sum of squares. Keras does so if statistics are synchronised,
    and XLA does so always. One collective adds all sums, because each layer has to wait for it.
    Columns are left out by a factor of zero, not by a slice: a TPU can compute these sums together
    with the convolution before them, but writes a slice to memory first.
    """
    channels = values.shape[-1]
    number = tf.cast(tf.size(values) / channels, values.dtype)
    summands = [values, tf.square(values)]
    if counts is not None:
        number *= counts.mean()
        summands = [one * counts for one in summands]
    sums = [tf.reduce_sum(one, axis=[0, 1, 2]) for one in summands]
    packed = tf.concat([*sums, [number]], axis=0)
    if shared:
        (packed,) = distribution.sum_replicas([packed])
    total, squares, number = tf.split(packed, [channels, channels, 1])
    mean = tf.math.divide_no_nan(total, number)
    variance = tf.math.divide_no_nan(squares, number) - tf.square(mean)
    return mean, tf.maximum(variance, tf.zeros_like(variance))


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
