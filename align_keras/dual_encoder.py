"""The task: a backbone, a learned temperature and the contrastive training step."""

import math

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from align_keras import distribution, hub, inputs, losses
from align_keras.backbone import AlignBackbone
from align_keras.conversion import transformers
from align_keras.inputs import MODEL_INPUTS
from align_keras.preprocessor import AlignPreprocessor


class _AtLeast(keras.constraints.Constraint):
    """Keeps a weight from falling below a minimum."""

    def __init__(self, minimum):
        self.minimum = minimum

    def __call__(self, weight):
        return tf.maximum(weight, self.minimum)


@keras.saving.register_keras_serializable(package="align_keras")
class AlignDualEncoder(keras.Model):
    """Trains an ``AlignBackbone`` with negatives from every replica (paper, sec. 4.1).

    The temperature is one scalar for both directions. The paper says that it is learned from
    1.0 and ends near 1/64, not how; here ``log(temperature)`` is the variable, which keeps it
    positive and makes a step relative. Being a scalar it gets neither decay nor layer
    adaptation, so that a step moves it by at most about ``learning_rate``, relative: with the
    paper's schedule the warm-up alone allows a factor of ``exp(5)``. A run of a few thousand
    steps starts lower, at 0.1 or so.

    Args:
        backbone: an ``AlignBackbone``.
        preprocessor: an ``AlignPreprocessor``, for raw images and captions; None if there are to
            be none.
        initial_temperature: of the softmax, 1.0 in the paper.
        min_temperature: the floor, below the 1/64 that the paper converges to: it bounds the
            logits where a run overfits.
        **kwargs: of ``keras.Model``.

    Inputs and outputs are the backbone's; the outputs have also ``logits``,
    ``(images, captions)``, similarity / temperature.

    Example:

    ```python
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "square"]
    model = align_keras.AlignDualEncoder(
        align_keras.build_backbone("align_nano_tiny", vocabulary_size=len(vocabulary)),
        align_keras.AlignPreprocessor(vocabulary, 64, 72, sequence_length=24),
    )
    photos = np.zeros((3, 80, 80, 3), "uint8")
    images = model.encode_images(photos)  # (3, 192)
    texts = model.encode_texts(["a red square", "a blue square"])  # (2, 192)
    similarity = images @ texts.T  # (3, 2)
    model.save_to_preset("squares")
    same = align_keras.AlignDualEncoder.from_preset("squares")
    ```
    """

    MIN_TEMPERATURE = 0.005
    backbone_cls = AlignBackbone
    preprocessor_cls = AlignPreprocessor

    def __init__(
        self,
        backbone,
        preprocessor=None,
        initial_temperature=1.0,
        min_temperature=MIN_TEMPERATURE,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0.0 < min_temperature <= initial_temperature:
            raise ValueError(
                f"temperatures must be 0 < min_temperature <= initial_temperature, "
                f"not {min_temperature} and {initial_temperature}"
            )
        self.backbone = backbone
        self.preprocessor = preprocessor
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
        self._traced = {}
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
            **kwargs: of ``keras.Model.compile``.

        Raises:
            ValueError: if the optimizer clips.
        """
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

    def get_compile_config(self):
        """The arguments of ``compile``, serialised."""
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "label_smoothing": self.label_smoothing,
            "mask_false_negatives": self.mask_false_negatives,
            "global_clipnorm": self.global_clipnorm,
        }

    def compile_from_config(self, config):
        """Compiles from ``get_compile_config``'s dictionary, as loading a model does."""
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
        self.compile(**{**config, "optimizer": optimizer})
        # So that its state can be loaded.
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
        rows = tf.shape(images)[0]
        replica, _ = distribution.replica_place()
        positives = replica * rows + tf.range(rows)
        excluded = self._excluded(batch, positives)

        results = {}
        for direction, queries, keys in (("i2t", images, texts), ("t2i", texts, images)):
            logits = losses.pair_logits(
                queries, distribution.gather_replicas(keys), self.temperature
            )
            loss = losses.softmax_cross_entropy(logits, positives, self.label_smoothing, excluded)
            recall = losses.recall_at_1(logits, positives, excluded)
            results[f"loss_{direction}"] = tf.reduce_mean(loss)
            results[f"{direction}_recall_at_1"] = tf.reduce_mean(recall)
        return {"loss": results["loss_i2t"] + results["loss_t2i"], **results}

    def _excluded(self, batch, positives):
        """Pairs that share an image or a caption, ``(rows, columns)``; None for no mask."""
        excluded = None
        if self.mask_false_negatives:
            for name in ("image_ids", "caption_ids"):
                if name in batch:
                    everyones = distribution.gather_replicas(batch[name])
                    shared = losses.false_negatives(batch[name], everyones, positives)
                    excluded = shared if excluded is None else excluded | shared
        return excluded

    def compute_gradients(self, batch):
        """The global batch's gradients, the same on every replica.

        Returns:
            The losses of ``contrastive_losses`` and a list of gradients, one for each
            trainable variable, of the loss's mean over the global batch.
        """
        _, replicas = distribution.replica_place()
        with tf.GradientTape() as tape:
            embeddings = self.backbone(_model_inputs(batch), training=True)
            results = self.contrastive_losses(embeddings, batch)
            share = results["loss"] / replicas
        variables = [variable.value for variable in self.trainable_variables]
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(share, variables)]
        return results, distribution.sum_replicas(gradients)

    def train_step(self, batch):
        """One step on this replica's share of a global batch: Keras's hook for ``fit``."""
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
        embeddings = self.backbone(_model_inputs(batch), training=False)
        others = {name: batch[name] for name in batch if name not in MODEL_INPUTS}
        return {**embeddings, **others}

    def predict(self, x, batch_size=None, **kwargs):
        """Embeds pairs.

        Args:
            x: a dict of ``images`` and ``captions``, each in a form that ``encode_images`` and
                ``encode_texts`` take; a ``tf.data.Dataset`` of such dicts; or the backbone's
                inputs, as arrays or a dataset.
            batch_size: pairs at a time, 32 by default; a batched dataset keeps its own.
            **kwargs: of ``keras.Model.predict``.

        Returns:
            A dict of ``image_embeddings`` and ``text_embeddings``, float32,
            ``(pairs, projection_dim)``, and a dataset's further fields.

        Raises:
            ValueError: if something is no image or string, or one of a pair is missing.
            FileNotFoundError: if there is no such image file.
        """
        if isinstance(x, tf.data.Dataset) and not _has_model_inputs(x.element_spec):
            x = inputs.prepare_dataset(x, self.preprocessor, batch_size or 32)
        elif isinstance(x, dict) and not _has_model_inputs(x):
            batches = inputs.pair_batches(x, self.preprocessor, batch_size or 32)
            outputs = [self.predict_on_batch(batch) for batch in batches]
            return {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}
        return super().predict(x, batch_size=batch_size, **kwargs)

    def encode_images(self, images, batch_size=32):
        """Embeds images.

        Args:
            images: floats ``(count, image_size, image_size, 3)``, scaled as the model takes
                them; integers ``(count, height, width, 3)``, 0 .. 255; a list of paths, encoded
                images (bytes), PIL images or integer arrays; or a ``tf.data.Dataset`` of these
                or of dicts with a field ``images``.
            batch_size: images at a time; a batched dataset keeps its own.

        Returns:
            A NumPy array, float32, ``(count, projection_dim)``, of unit norm.

        Raises:
            ValueError: if something is no image, with its name or place.
            FileNotFoundError: if there is no such file.
        """
        return self._encode(
            self.backbone.encode_images,
            inputs.image_batches(images, self.preprocessor, batch_size),
        )

    def encode_texts(self, texts, batch_size=256):
        """Embeds captions.

        Args:
            texts: a list of strings, or a single one; a dict of ``token_ids``, ``segment_ids``
                and ``padding_mask``, ``(count, sequence)``; or a ``tf.data.Dataset`` of strings
                or of dicts with a field ``captions``.
            batch_size: captions at a time; a batched dataset keeps its own.

        Returns:
            A NumPy array, float32, ``(count, projection_dim)``, of unit norm.

        Raises:
            ValueError: if something is no string.
        """
        return self._encode(
            self.backbone.encode_texts,
            inputs.caption_batches(texts, self.preprocessor, batch_size),
        )

    def _encode(self, encode, batches):
        # Traced once a tower; shapes may vary.
        if encode.__name__ not in self._traced:
            self._traced[encode.__name__] = tf.function(encode, reduce_retracing=True)
        embeddings = [self._traced[encode.__name__](batch).numpy() for batch in batches]
        if not embeddings:
            return np.zeros((0, self.backbone.projection_dim), "float32")
        return np.concatenate(embeddings)

    # keras-hub's `Task` is not the base class: its `fit` and `predict` preprocess what
    # the pipelines here have preprocessed, and know no replicas. Its files are the same.
    has_task_weights = keras_hub.models.Task.has_task_weights
    save_task_weights = keras_hub.models.Task.save_task_weights
    load_task_weights = keras_hub.models.Task.load_task_weights

    @classmethod
    def from_preset(cls, preset, load_weights=True, dtype=None, **options):
        """Loads a model from a preset, or from a checkpoint in Hugging Face's layout.

        Args:
            preset: a local folder, ``"hf://USER/MODEL"`` or ``"kaggle://..."``; either what
                ``save_to_preset`` wrote or an ``AlignModel`` of Hugging Face's, such as
                ``"hf://kakaobrain/align-base"``.
            load_weights: whether to load the weights, or leave random ones.
            dtype: precision policy, such as ``"mixed_bfloat16"``; the global one by default.
            **options: of the constructor, in place of the preset's own.

        Returns:
            An ``AlignDualEncoder`` with its preprocessor.

        Raises:
            ValueError: if it is no such preset, or a hub cannot be reached.
            FileNotFoundError: if the folder, or a file in it, is missing.
        """
        with hub.opened(preset, dtype) as loader:
            return loader.load_task(cls, load_weights, True, **options)

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Writes the model as a preset, which ``from_preset`` loads and
        ``keras_hub.upload_preset`` uploads.

        Args:
            preset_dir: a folder, which is made.
            max_shard_size: gigabytes a file of weights.
        """
        keras_hub.models.Task.save_to_preset(self, str(preset_dir), max_shard_size)

    def export_to_transformers(self, path):
        """Writes the model in the layout of Hugging Face's ``AlignModel``.

        Args:
            path: a folder, which is made.

        Raises:
            ValueError: if the layout cannot express the model: the image tower must be one of
                EfficientNet B0 to B7 or L2, as wide as the embeddings, and there must be a
                preprocessor.
        """
        transformers.export(self, path)

    def get_config(self):
        """The constructor's arguments, serialised."""
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "initial_temperature": self.initial_temperature,
            "min_temperature": self.min_temperature,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds a dual encoder from ``get_config``'s dictionary."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("backbone", "preprocessor")
        }
        return cls(**{**config, **parts})


def _model_inputs(batch):
    return {name: batch[name] for name in MODEL_INPUTS}


def _has_model_inputs(batch):
    return isinstance(batch, dict) and "token_ids" in batch
