"""The contrastive training step: a learned temperature, negatives from every replica."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from align_keras import distribution, keras_internals, losses
from align_keras.layers.batch_norm import average_statistics
from align_keras.layers.constraints import AtLeast
from align_keras.losses.global_batch import ID_FIELDS, global_losses, repeated_share
from align_keras.models import compile_config, micro_batches
from align_keras.optimizers import averaging
from align_keras.optimizers.wrapping import for_summed_gradients, inner_optimizer, loss_scale
from align_keras.preprocessing import raw_inputs
from align_keras.preprocessing.fields import inputs_of
from align_keras.preprocessing.preprocessor import AlignPreprocessor

#: The floor of the temperature, below the 1/64 that the paper converges to.
MIN_TEMPERATURE = 0.005
_METRICS = (
    *("loss", "loss_i2t", "loss_t2i", "i2t_recall_at_1", "t2i_recall_at_1"),
    *("temperature", "learning_rate", "gradient_norm", "repeated_captions"),
)


class ContrastiveModel(compile_config.Recompiled, keras_internals.BuiltBeforeFit):
    """Trains an ``AlignBackbone`` with negatives from every replica (paper, sec. 4.1).

    The temperature is one scalar for both directions. The paper says that it is learned, starts at
    1.0 and ends near 1/64, but not how. Here ``log(temperature)`` is the variable, which keeps the
    temperature positive and makes its steps relative. As a scalar it gets neither decay nor layer
    adaptation, so one step changes it by a factor of at most about ``1 + learning_rate``: with the
    paper's schedule, the warm-up alone allows a factor of ``exp(5)``. Runs of a few thousand steps
    need a lower start, about 0.1.

    Args:
        backbone: an ``AlignBackbone``.
        initial_temperature: initial temperature of the softmax, 1.0 in the paper.
        min_temperature: lower bound, which bounds the logits when a run overfits.
        **kwargs: passed to ``keras.Model``.

    Inputs and outputs are the backbone's, plus the output ``logits``, ``(images, captions)``:
    similarity / temperature. Instead of ``images``, the inputs may have ``pixels``: uint8 crops,
    which the attribute ``preprocessor`` scales. They may also have the features of a tower,
    ``image_features`` or ``text_features``, instead of its inputs.

    Raises:
        ValueError: unless 0 < ``min_temperature`` <= ``initial_temperature``.
    """

    preprocessor: AlignPreprocessor | None = None

    def __init__(
        self,
        backbone: keras.Model,
        initial_temperature: float = 1.0,
        min_temperature: float = MIN_TEMPERATURE,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 < min_temperature <= initial_temperature:
            raise ValueError(
                f"temperatures must be 0 < min_temperature <= initial_temperature, "
                f"not {min_temperature} and {initial_temperature}"
            )
        self.backbone = backbone
        # otherwise inputs would be cast to the global policy
        self.dtype_policy = backbone.dtype_policy
        self.initial_temperature = initial_temperature
        self.min_temperature = min_temperature
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=(),
            dtype="float32",
            autocast=False,
            initializer=keras.initializers.Constant(math.log(initial_temperature)),
            # The optimizer applies the bound after each step. Bounding the value where it is used
            # would leave no gradient below the bound, so the temperature could not return.
            constraint=AtLeast(math.log(min_temperature)),
        )
        self._trackers = {name: keras.metrics.Mean(name=name) for name in _METRICS}
        #: Further float32 scalars of a step; their means over the replicas are added to its
        #: results.
        self.exchanged: Callable[[], dict[str, tf.Tensor]] = dict
        #: Called with the replica's batch in each training step.
        self.observed: Callable[[Mapping[str, tf.Tensor]], None] | None = None
        self.built = True

    @property
    def temperature(self) -> tf.Tensor:
        """The temperature of the softmax, a float32 scalar."""
        return tf.exp(self.log_temperature)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the progress bar; recalls are computed within the batch."""
        return list(self._trackers.values())

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Embeds and scores a dict of the inputs of the backbone."""
        embeddings = self.backbone.embed_pairs(self._scaled(inputs_of(inputs)), training)
        logits = losses.pair_logits(
            embeddings["image_embeddings"], embeddings["text_embeddings"], self.temperature
        )
        return {**embeddings, "logits": logits}

    def compile(
        self,
        optimizer: str | dict | keras.optimizers.Optimizer = "rmsprop",
        label_smoothing: float = 0.1,
        mask_false_negatives: bool = True,
        global_clipnorm: float | None = None,
        loss_tile_rows: int | None = None,
        micro_batch_size: int | None = None,
        rematerialize: bool = False,
        space_to_batch: bool | None = None,
        **kwargs,
    ) -> None:
        """Sets how to train.

        If a layer computes in float16, the loss is scaled. The factor doubles every 2,000 steps; if
        a gradient overflows, it is halved and the step is skipped.

        Args:
            optimizer: a Keras optimizer without clipping: Keras would clip before the gradients of
                the replicas are summed.
            label_smoothing: label smoothing of both softmaxes, 0.1 in the paper.
            mask_false_negatives: if true, two pairs with the same image id or caption are not
                negatives of each other. ``False`` for the paper's loss.
            global_clipnorm: bound on the norm of all gradients together, after the sum over
                replicas; ``None`` for none.
            loss_tile_rows: number of rows of the logits that the loss holds at once; 0 for the full
                matrix, ``None`` as in ``global_losses``.
            micro_batch_size: number of a replica's pairs whose activations are in memory at once;
                it must divide the replica's share of the batch. The gradient is still that of the
                entire global batch, except for batch norm. Batch norm normalises each micro-batch
                of each replica by its own statistics, and the moving averages use the mean of
                these. ``None`` processes the entire share at once.
            rematerialize: whether the towers keep only the inputs of their blocks and recompute
                the rest in the backward pass, with the same dropout masks.
            space_to_batch: whether an ``ImageEncoder`` cuts images into chunks in its first stages,
                which does not change the results; ``None`` for TPUs only.
            **kwargs: passed to ``keras.Model.compile``.

        Raises:
            ValueError: if the optimizer clips, scales or accumulates, or a tower does not support
                an option.
        """
        layers = keras_internals.layers_of(self.backbone, include_self=False)
        is_half = "float16" in {layer.compute_dtype for layer in layers}
        optimizer = for_summed_gradients(keras.optimizers.get(optimizer), scale_loss=is_half)
        self._trackers.pop("loss_scale", None)
        if inner_optimizer(optimizer) is not optimizer:
            self._trackers["loss_scale"] = keras.metrics.Mean(name="loss_scale")
        super().compile(optimizer=optimizer, auto_scale_loss=False, **kwargs)
        with self.distribute_strategy.scope():
            averaging.average_statistics_too(self, optimizer)
        self.label_smoothing = label_smoothing
        self.mask_false_negatives = mask_false_negatives
        self.global_clipnorm = global_clipnorm
        self.loss_tile_rows = loss_tile_rows
        self.micro_batch_size = micro_batch_size
        self.rematerialize = rematerialize
        self.space_to_batch = space_to_batch
        towers = self.backbone.image_encoder, self.backbone.text_encoder
        compile_config.set_option(towers[0], "space_to_batch", space_to_batch)
        for tower in towers:
            compile_config.set_option(tower, "rematerialize", rematerialize)

    def contrastive_losses(
        self,
        embeddings: Mapping[str, tf.Tensor],
        batch: Mapping[str, tf.Tensor],
        may_tile: bool = True,
    ) -> dict[str, tf.Tensor]:
        """``global_losses`` of this replica's share of a batch.

        Args:
            embeddings: the backbone's output for the share.
            batch: the share; ``image_ids`` and ``caption_ids``, int64, ``(rows,)``, are used if
                false negatives are masked, and may be absent.
            may_tile: whether ``loss_tile_rows`` applies; it needs a static number of pairs.
        """
        ids = [batch[name] for name in ID_FIELDS if name in batch]
        return global_losses(
            embeddings["image_embeddings"],
            embeddings["text_embeddings"],
            self.temperature,
            ids if self.mask_false_negatives else [],
            self.label_smoothing,
            self.loss_tile_rows if may_tile else 0,
        )

    def compute_gradients(
        self, batch: Mapping[str, tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """The gradients of the global batch, the same on every replica.

        Returns:
            The losses of ``contrastive_losses``, and a list with one gradient per trainable
            variable: the gradients of the mean loss over the global batch. Under float16 they may
            be infinite.
        """
        _, replicas = distribution.replica_place()
        scale = loss_scale(self.optimizer)

        def losses_of(embeddings):
            results = self.contrastive_losses(embeddings, batch)
            return results, results["loss"] * (scale / replicas)

        results, gradients = micro_batches.gradients(
            self.backbone,
            inputs_of(batch),
            losses_of,
            [variable.value for variable in self.trainable_variables],
            self.micro_batch_size,
            self._scaled,
        )
        gradients = distribution.sum_replicas(gradients)
        return results, [gradient / scale for gradient in gradients]

    def train_step(self, batch: Any) -> dict[str, tf.Tensor]:
        """Trains one step on this replica's share of a global batch; Keras's hook for ``fit``."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if self.observed is not None:
            self.observed(batch)
        results, gradients = self.compute_gradients(batch)
        norm = tf.linalg.global_norm(gradients)
        if self.global_clipnorm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.global_clipnorm, norm)
        # On TPUs Keras reports the metrics of the first replica, so every replica gets the mean.
        exchanged = self.exchanged()
        results = distribution.mean_of_replicas(results | exchanged)
        exchanged = {name: results.pop(name) for name in exchanged}
        scale = loss_scale(self.optimizer)
        results |= {"temperature": self.temperature, "learning_rate": self.optimizer.learning_rate}
        if "caption_ids" in batch:
            results["repeated_captions"] = repeated_share(batch["caption_ids"])
        if scales := "loss_scale" in self._trackers:
            results["loss_scale"] = scale
        steps_before = tf.identity(self.optimizer.iterations.value)
        # The optimizer divides by the scale when it applies the gradients.
        self.optimizer.apply([g * scale for g in gradients], self.trainable_variables)
        self._observe(results)
        # A step that overflows float16 is skipped. It does not mean that the run diverges.
        counts = tf.math.is_finite(norm) if scales else tf.constant(True)
        self._trackers["gradient_norm"].update_state(tf.where(counts, norm, 0.0), counts)
        # With synchronised batch norm, the statistics are already equal, except with micro-batches.
        synchronized = getattr(self.backbone.image_encoder, "synchronized_batch_norm", False)
        if not synchronized or self.micro_batch_size is not None:
            average_statistics(self.backbone)
        averaging.update_statistics(self, steps_before)
        return self._means([*results, "gradient_norm"], exchanged)

    def test_step(self, batch: Any) -> dict[str, tf.Tensor]:
        """Losses and recalls of a batch in inference; Keras's hook for ``evaluate``.

        They are the results of ``train_step`` among the pairs of one batch, but without dropout and
        with the moving statistics of batch norm. Pairs whose field ``valid`` is false are left out.
        Batches are weighted by their number of pairs.
        """
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        pairs = dict(self._embed(batch))
        pairs |= {name: batch[name] for name in ID_FIELDS if name in batch}
        if "valid" in batch:
            pairs = {name: tf.boolean_mask(value, batch["valid"]) for name, value in pairs.items()}
        is_static = pairs["image_embeddings"].shape[0] is not None
        results = self.contrastive_losses(pairs, pairs, may_tile=is_static)
        results = distribution.mean_of_replicas(results)
        results["temperature"] = self.temperature
        _, count = distribution.place_of_rows(pairs["image_embeddings"])
        self._observe(results, tf.cast(count, tf.float32))
        return self._means(results)

    def _embed(self, batch):
        return distribution.on_a_share(
            lambda inputs: self.backbone.embed_pairs(self._scaled(inputs)), inputs_of(batch)
        )

    def _scaled(self, inputs):
        return raw_inputs.scaled_inputs(inputs, self.preprocessor)

    def _observe(self, values, weight=None):
        for name, value in values.items():
            self._trackers[name].update_state(value, weight)

    def _means(self, names, others=()):
        """The means of the named metrics so far, and other results."""
        results = dict(others) | {name: self._trackers[name].result() for name in names}
        if distribution.worker_place(self.distribute_strategy)[1] > 1:
            # With several workers, Keras averages over axis 0 and fails on scalars.
            results = {name: tf.reshape(value, [1]) for name, value in results.items()}
        return results

    def predict_step(self, batch: Any) -> dict[str, tf.Tensor]:
        """Embeds a batch; its other fields (ids, ``valid``) are passed through."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        inputs = inputs_of(batch)
        return self._embed(batch) | {name: batch[name] for name in batch if name not in inputs}
