"""The contrastive training step: a learned temperature, negatives from every replica."""

import math

import keras
import tensorflow as tf

from align_keras import distribution, losses, micro_batches
from align_keras.inputs import MODEL_INPUTS
from align_keras.tiled_loss import rows_of_a_tile, tiled_losses

#: The floor of the temperature, below the 1/64 that the paper converges to.
MIN_TEMPERATURE = 0.005
#: Above so many logits a replica the loss is tiled by itself: 16 MiB a matrix, of which the dense
#: form holds a dozen.
_MAX_DENSE_LOGITS = 1 << 22


class _AtLeast(keras.constraints.Constraint):
    """Keeps a weight from falling below a minimum."""

    def __init__(self, minimum):
        self.minimum = minimum

    def __call__(self, weight):
        return tf.maximum(weight, self.minimum)


class ContrastiveModel(keras.Model):
    """Trains an ``AlignBackbone`` with negatives from every replica (paper, sec. 4.1).

    The temperature is one scalar for both directions. The paper says that it is learned from
    1.0 and ends near 1/64, not how; here ``log(temperature)`` is the variable, which keeps it
    positive and makes a step relative. Being a scalar it gets neither decay nor layer
    adaptation, so that a step moves it by at most about ``learning_rate``, relative: with the
    paper's schedule the warm-up alone allows a factor of ``exp(5)``. A run of a few thousand
    steps starts lower, at 0.1 or so.

    Args:
        backbone: an ``AlignBackbone``.
        initial_temperature: of the softmax, 1.0 in the paper.
        min_temperature: the floor, which bounds the logits where a run overfits.
        **kwargs: of ``keras.Model``.

    Inputs and outputs are the backbone's; the outputs have also ``logits``,
    ``(images, captions)``, similarity / temperature.

    Raises:
        ValueError: unless 0 < ``min_temperature`` <= ``initial_temperature``.
    """

    def __init__(
        self, backbone, initial_temperature=1.0, min_temperature=MIN_TEMPERATURE, **kwargs
    ):
        super().__init__(**kwargs)
        if not 0.0 < min_temperature <= initial_temperature:
            raise ValueError(
                f"temperatures must be 0 < min_temperature <= initial_temperature, "
                f"not {min_temperature} and {initial_temperature}"
            )
        self.backbone = backbone
        self.initial_temperature = initial_temperature
        self.min_temperature = min_temperature
        self.log_temperature = self.add_weight(
            name="log_temperature",
            shape=(),
            dtype="float32",
            autocast=False,
            initializer=keras.initializers.Constant(math.log(initial_temperature)),
            # The optimizer applies it after each step. Bounding the value where it is used
            # would leave no gradient below the floor, and so no way back.
            constraint=_AtLeast(math.log(min_temperature)),
        )
        self._trackers = {
            name: keras.metrics.Mean(name=name)
            for name in (
                "loss",
                "loss_i2t",
                "loss_t2i",
                "i2t_recall_at_1",
                "t2i_recall_at_1",
                "temperature",
                "learning_rate",
                "gradient_norm",
            )
        }
        self.built = True

    @property
    def temperature(self):
        """The softmax temperature, a float32 scalar."""
        return tf.exp(self.log_temperature)

    @property
    def metrics(self):
        """What the progress bar shows; the recalls are those inside the batch."""
        return list(self._trackers.values())

    def call(self, inputs, training=False):
        """Embeds and scores a dict of the backbone's inputs."""
        embeddings = self.backbone(_model_inputs(inputs), training=training)
        logits = losses.pair_logits(
            embeddings["image_embeddings"], embeddings["text_embeddings"], self.temperature
        )
        return {**embeddings, "logits": logits}

    def compile(
        self,
        optimizer="rmsprop",
        label_smoothing=0.1,
        mask_false_negatives=True,
        global_clipnorm=None,
        loss_tile_rows=None,
        micro_batch_size=None,
        **kwargs,
    ):
        """Sets how to train.

        Args:
            optimizer: a Keras optimizer without clipping of its own: Keras clips before the
                gradients of the replicas are summed.
            label_smoothing: of both softmaxes, 0.1 in the paper.
            mask_false_negatives: whether two pairs with the same image id or caption are no
                negatives of each other. ``False`` for the paper's loss.
            global_clipnorm: bound on the norm of all gradients together, after the sum over
                replicas; ``None`` for none.
            loss_tile_rows: rows of the matrix of logits that the loss holds at once; 0 for the
                whole matrix, ``None`` for the whole up to 2,048 pairs and 8 MiB of it above.
            micro_batch_size: pairs of a replica whose activations are in memory at once; must
                divide its share of the batch. The gradient is that of the whole global batch;
                only batch norm sees micro-batches. ``None`` for the whole share.
            **kwargs: of ``keras.Model.compile``.

        Raises:
            ValueError: if the optimizer clips, or the backbone computes in float16, whose
                gradients would need a scaled loss.
        """
        if self.backbone.text_projection.compute_dtype == "float16":
            raise ValueError(
                "training in float16 would need a scaled loss, which is not there; build the "
                "model under mixed_bfloat16 or float32"
            )
        super().compile(optimizer=optimizer, **kwargs)
        clips = (
            self.optimizer.clipnorm,
            self.optimizer.clipvalue,
            self.optimizer.global_clipnorm,
        )
        if any(clips):
            raise ValueError("give global_clipnorm to compile, not to the optimizer")
        self.label_smoothing = label_smoothing
        self.mask_false_negatives = mask_false_negatives
        self.global_clipnorm = global_clipnorm
        self.loss_tile_rows = loss_tile_rows
        self.micro_batch_size = micro_batch_size

    def get_compile_config(self):
        """The arguments of ``compile``, serialised; None if it has not been called."""
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "optimizer_is_built": self.optimizer.built,
            "label_smoothing": self.label_smoothing,
            "mask_false_negatives": self.mask_false_negatives,
            "global_clipnorm": self.global_clipnorm,
            "loss_tile_rows": self.loss_tile_rows,
            "micro_batch_size": self.micro_batch_size,
        }

    def compile_from_config(self, config):
        """Compiles from ``get_compile_config``'s dictionary, as loading a model does."""
        options = {name: config[name] for name in config if name != "optimizer_is_built"}
        options["optimizer"] = keras.saving.deserialize_keras_object(config["optimizer"])
        self.compile(**options)
        if config["optimizer_is_built"]:  # it has state to load
            self.optimizer.build(self.trainable_variables)

    def contrastive_losses(self, embeddings, batch):
        """Both directions of this replica's pairs against the pairs of every replica.

        Args:
            embeddings: the backbone's output for this replica's share of the batch.
            batch: the share itself; ``image_ids`` and ``caption_ids``, int64, ``(rows,)``,
                are read if false negatives are masked, and may be absent.

        Returns:
            A dict of float32 scalars, means over this replica's pairs: ``loss``,
            ``loss_i2t``, ``loss_t2i``, ``i2t_recall_at_1``, ``t2i_recall_at_1``.
        """
        images, texts = embeddings["image_embeddings"], embeddings["text_embeddings"]
        replica, replicas = distribution.replica_place()
        options = {
            "label_smoothing": self.label_smoothing,
            "ids": [batch[name] for name in ID_FIELDS if name in batch]
            if self.mask_false_negatives
            else [],
            "replica": replica,
            "gather": distribution.gather_replicas,
        }
        tile_rows = self.loss_tile_rows
        if tile_rows is None:
            rows = images.shape[0] or 0  # not known while Keras traces a last, smaller batch
            columns = rows * replicas
            tile_rows = rows_of_a_tile(columns) if rows * columns > _MAX_DENSE_LOGITS else 0
        if tile_rows:
            options |= {"tile_rows": tile_rows, "replicas": replicas}
            options["add"] = distribution.sum_replicas
            values = tiled_losses(images, texts, self.temperature, **options)
        else:
            values = losses.dense_losses(images, texts, self.temperature, **options)
        names = ("loss_i2t", "loss_t2i", "i2t_recall_at_1", "t2i_recall_at_1")
        results = {name: tf.reduce_mean(v) for name, v in zip(names, values, strict=True)}
        return {"loss": results["loss_i2t"] + results["loss_t2i"], **results}

    def compute_gradients(self, batch):
        """The global batch's gradients, the same on every replica.

        Returns:
            The losses of ``contrastive_losses`` and a list of gradients, one for each
            trainable variable, of the loss's mean over the global batch.
        """
        if self.micro_batch_size is None:
            with tf.GradientTape() as tape:
                embeddings = self.backbone(_model_inputs(batch), training=True)
                results, share = self._loss_share(embeddings, batch)
            variables = [variable.value for variable in self.trainable_variables]
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(share, variables)]
        else:
            results, gradients = self._micro_batched_gradients(batch)
        return results, distribution.sum_replicas(gradients)

    def _loss_share(self, embeddings, batch):
        """The losses, and what this replica adds to the global batch's mean loss."""
        _, replicas = distribution.replica_place()
        results = self.contrastive_losses(embeddings, batch)
        return results, results["loss"] / replicas

    def _micro_batched_gradients(self, batch):
        """The same gradients with the activations of one micro-batch in memory."""
        inputs = _model_inputs(batch)
        embeddings, replay = micro_batches.embed(self.backbone, inputs, self.micro_batch_size)
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            results, share = self._loss_share(embeddings, batch)
        temperature = self.log_temperature.value
        d_embeddings, d_temperature = tape.gradient(share, [embeddings, temperature])
        by_variable = replay(d_embeddings)
        by_variable[temperature.ref()] = d_temperature
        return results, [by_variable[v.value.ref()] for v in self.trainable_variables]

    def train_step(self, batch):
        """One step on this replica's share of a global batch: Keras's hook for ``fit``."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        results, gradients = self.compute_gradients(batch)
        norm = tf.linalg.global_norm(gradients)
        if self.global_clipnorm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.global_clipnorm, norm)
        _, replicas = distribution.replica_place()
        # On TPUs Keras reports the first replica's metrics: give every replica the mean.
        values = distribution.sum_replicas([tf.stack(list(results.values()))])[0] / replicas
        results = dict(zip(results, tf.unstack(values), strict=True))
        results["gradient_norm"] = norm
        results["temperature"] = self.temperature
        results["learning_rate"] = self.optimizer.learning_rate
        # Applying sums over the replicas once more.
        gradients = [gradient / replicas for gradient in gradients]
        self.optimizer.apply(gradients, self.trainable_variables)
        for name, value in results.items():
            self._trackers[name].update_state(value)
        self._average_batch_norm_statistics(replicas)
        results = self.get_metrics_result()
        _, workers = distribution.worker_place(self.distribute_strategy)
        if workers > 1:
            # Keras averages over axis 0 there, and fails on scalars.
            results = {name: tf.reshape(value, [1]) for name, value in results.items()}
        return results

    def _average_batch_norm_statistics(self, replicas):
        """Gives every replica the mean of the moving statistics, which Keras leaves apart.

        Without it a replica would embed, and a checkpoint hold, statistics of its own share.
        Where batch norm is synchronised they are the same already.
        """
        if replicas == 1 or getattr(self.backbone.image_encoder, "synchronized_batch_norm", False):
            return
        variables = [v for v in self.backbone.non_trainable_variables if "moving_" in v.path]
        sums = distribution.sum_replicas([tf.convert_to_tensor(v.value) for v in variables])
        for variable, total in zip(variables, sums, strict=True):
            variable.assign(total / replicas)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds the optimizer before ``fit`` traces a step; the rest is built already.

        Keras would draw and average a batch to build the model, which fails under
        ``MultiWorkerMirroredStrategy``.
        """
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def predict_step(self, batch):
        """Embeds a batch; other fields of it (ids, ``valid``) pass through beside."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        embeddings = self.backbone(_model_inputs(batch), training=False)
        others = {name: batch[name] for name in batch if name not in MODEL_INPUTS}
        return {**embeddings, **others}


ID_FIELDS = ("image_ids", "caption_ids")


def _model_inputs(batch):
    return {name: batch[name] for name in MODEL_INPUTS}
