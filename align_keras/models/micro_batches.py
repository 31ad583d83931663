"""Gradients of a large batch with the activations of a small one in memory.

A contrastive loss cannot be averaged over parts of the batch. But its gradient needs the
activations of only one part at a time (Gao et al., 2021, "GradCache"): embed all parts without a
tape, take the loss's gradient with respect to the embeddings, then run each part again and
propagate its slice of that gradient to the weights.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from align_keras.layers import batch_norm

# For weights on which the outputs do not depend.
_UNCONNECTED = tf.UnconnectedGradients.ZERO
Prepare = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


def gradients(
    backbone: keras.Model,
    inputs: Mapping[str, tf.Tensor],
    losses_of: Callable[[dict[str, tf.Tensor]], tuple[Any, tf.Tensor]],
    variables: Sequence[tf.Variable],
    micro_batch_size: int | None = None,
    prepare: Prepare = dict,
) -> tuple[Any, list[tf.Tensor]]:
    """Gradients of a loss of the embeddings, keeping the activations of all rows or of one part.

    Args:
        backbone: an ``AlignBackbone``.
        inputs: inputs of the backbone, or what ``prepare`` converts to them.
        losses_of: a function from the backbone's outputs to any results and the loss, a scalar.
        variables: the variables of the backbone and of ``losses_of``.
        micro_batch_size: rows per part, see ``embed``; ``None`` for all rows at once.
        prepare: converts a part to inputs of the backbone, at the time when the part is embedded.

    Returns:
        The results of ``losses_of``, and a list of float32 gradients, one for each variable.

    Raises:
        ValueError: as in ``embed``.
    """
    if micro_batch_size is None:
        with tf.GradientTape() as tape:
            results, loss = losses_of(backbone.embed_pairs(prepare(inputs), training=True))
        found = tape.gradient(loss, variables, unconnected_gradients=_UNCONNECTED)
        return results, [_dense(gradient) for gradient in found]
    embeddings, replay = embed(backbone, inputs, micro_batch_size, prepare)
    inner = {variable.value.ref() for variable in backbone.trainable_variables}
    outer = [variable for variable in variables if variable.ref() not in inner]
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        results, loss = losses_of(embeddings)
    d_embeddings, d_outer = tape.gradient(
        loss, [embeddings, outer], unconnected_gradients=_UNCONNECTED
    )
    by_variable = replay(d_embeddings)
    by_variable |= {variable.ref(): found for variable, found in zip(outer, d_outer, strict=True)}
    return results, [by_variable[variable.ref()] for variable in variables]


def embed(
    backbone: keras.Model,
    inputs: Mapping[str, tf.Tensor],
    micro_batch_size: int,
    prepare: Prepare = dict,
) -> tuple[dict[str, tf.Tensor], Callable[[Any], dict[Any, tf.Tensor]]]:
    """Embeds a batch in training mode, part by part, and keeps no activations.

    Args:
        backbone: an ``AlignBackbone``.
        inputs: inputs of the backbone, of static shapes.
        micro_batch_size: rows per part; must divide the batch.
        prepare: as in ``gradients``.

    Returns:
        ``(embeddings, replay)``: the backbone's outputs for the entire batch, and a function. The
        function takes the loss's gradients with respect to these outputs, and returns a dict of
        gradients by the variables' ``ref()``. It runs every part again with the same dropout masks.
        Batch norm normalises each part by its own statistics, even when synchronised, so that
        replicas give the same results as one device with the same parts. Its moving averages are
        updated once, with the mean of the parts.

    Raises:
        ValueError: if ``micro_batch_size`` does not divide the batch, or the batch size is not
            static.
    """
    parts = _Parts(backbone, inputs, micro_batch_size, prepare)
    embeddings, averages = parts.embed()
    return embeddings, lambda d_embeddings: parts.replay(d_embeddings, averages)


class _Parts:
    """A batch cut into parts, and the backbone's state before the first part."""

    def __init__(
        self,
        backbone: keras.Model,
        inputs: Mapping[str, tf.Tensor],
        micro_batch_size: int,
        prepare: Prepare,
    ) -> None:
        rows = next(iter(inputs.values())).shape[0]
        if rows is None:
            raise ValueError(
                "micro_batch_size: all batches must have the same size; batch the dataset with "
                "drop_remainder=True"
            )
        if rows % micro_batch_size:
            raise ValueError(
                f"micro_batch_size ({micro_batch_size}) must divide a replica's {rows} pairs"
            )
        self.backbone, self.prepare = backbone, prepare
        self.size, self.count = micro_batch_size, rows // micro_batch_size
        self.inputs = {
            name: tf.reshape(value, [self.count, self.size, *value.shape[1:]])
            for name, value in inputs.items()
        }
        # Seeds of dropout, and moving averages. Each part changes them, except those of a frozen
        # tower.
        towers = [backbone.image_encoder, backbone.text_encoder]
        frozen = {id(weight) for tower in towers if not tower.trainable for weight in tower.weights}
        variables = [own for own in backbone.non_trainable_variables if id(own) not in frozen]
        statistics = {id(variable) for variable in batch_norm.moving_statistics(backbone)}
        averaged = [id(variable) in statistics for variable in variables]
        self.state = [variable.value for variable in variables]
        self.before = [tf.identity(variable) for variable in self.state]
        self.moving, self.moving_before = (
            list(itertools.compress(values, averaged)) for values in (self.state, self.before)
        )

    def embed_part(self, index):
        inputs = {name: value[index] for name, value in self.inputs.items()}
        return self.backbone.embed_pairs(self.prepare(inputs), training=True)

    def embed(self):
        """The embeddings of all parts, and the mean of the moving averages after each part."""

        def embed_and_average(index):
            _assign(self.moving, self.moving_before)
            return self.embed_part(index), [tf.identity(variable) for variable in self.moving]

        width = self.backbone.projection_dim
        outputs = {
            name: tf.TensorSpec([self.size, width], tf.float32) for name in self.backbone.output
        }
        averages = [tf.TensorSpec(variable.shape, variable.dtype) for variable in self.moving]
        with batch_norm.local_statistics():
            embeddings, averages = tf.map_fn(
                embed_and_average,
                tf.range(self.count),
                fn_output_signature=(outputs, averages),
                parallel_iterations=1,
            )
        # Each part started from the same averages, so their mean is one step towards the parts'
        # mean.
        averages = [tf.reduce_mean(average, axis=0) for average in averages]
        rows = self.count * self.size
        return {n: tf.reshape(value, [rows, width]) for n, value in embeddings.items()}, averages

    def replay(self, d_embeddings, averages):
        """Gradients by the variables' ``ref()``: runs every part again, from the same state."""
        _assign(self.state, self.before)
        variables = [variable.value for variable in self.backbone.trainable_variables]
        d_parts = {
            name: tf.reshape(value, [self.count, self.size, -1])
            for name, value in d_embeddings.items()
        }

        def add_part(index, totals):
            with tf.GradientTape() as tape:
                outputs = self.embed_part(index)
            upstream = {name: value[index] for name, value in d_parts.items()}
            gradients = tape.gradient(
                outputs, variables, output_gradients=upstream, unconnected_gradients=_UNCONNECTED
            )
            gradients = [_dense(gradient) for gradient in gradients]
            return index + 1, [t + g for t, g in zip(totals, gradients, strict=True)]

        with batch_norm.local_statistics():
            _, totals = tf.while_loop(
                lambda index, _: index < self.count,
                add_part,
                (0, [tf.zeros(variable.shape) for variable in variables]),
                parallel_iterations=1,
            )
        _assign(self.moving, averages)
        return {v.ref(): total for v, total in zip(variables, totals, strict=True)}


def _dense(gradient):
    # The gradient of an embedding is sparse. Gradients of half-precision variables become float32.
    return tf.cast(tf.convert_to_tensor(gradient), tf.float32)


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
