"""The complete model: backbone and preprocessor; trains, embeds, loads and saves."""

import os
from typing import Any, Self

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from align_keras import checksums, keras_internals
from align_keras.models import loading, preset_card
from align_keras.models.backbone import AlignBackbone
from align_keras.models.contrastive_model import MIN_TEMPERATURE, ContrastiveModel
from align_keras.models.conversion import transformers
from align_keras.models.embedder import Embedder
from align_keras.models.exporting import Exportable
from align_keras.preprocessing import pixel_ranges, raw_datasets, raw_inputs
from align_keras.preprocessing.preprocessor import AlignPreprocessor


@keras.saving.register_keras_serializable(package="align_keras")
class AlignDualEncoder(Embedder, Exportable, ContrastiveModel):
    """ALIGN: embeds images and captions, trains, loads and saves (paper, sec. 4.1).

    Args:
        backbone: an ``AlignBackbone``.
        preprocessor: an ``AlignPreprocessor`` for raw images and captions; None if there are none.
        initial_temperature: initial temperature of the softmax, 1.0 in the paper.
        min_temperature: lower bound of the temperature.
        **kwargs: passed to ``keras.Model``.

    Inputs and outputs are the backbone's, plus the output ``logits``, ``(images, captions)``:
    similarity / temperature.

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

    # keras-hub's `Task` is not the base class: its `fit` and `predict` would preprocess batches a
    # second time, and do not support replicas. The files of a preset are the same.
    backbone_cls = AlignBackbone
    preprocessor_cls = AlignPreprocessor

    def __init__(
        self,
        backbone: AlignBackbone,
        preprocessor: AlignPreprocessor | None = None,
        initial_temperature: float = 1.0,
        min_temperature: float = MIN_TEMPERATURE,
        **kwargs,
    ) -> None:
        super().__init__(backbone, initial_temperature, min_temperature, **kwargs)
        self.preprocessor = preprocessor

    def predict(self, x: Any, batch_size: int | None = None, **kwargs) -> dict[str, np.ndarray]:
        """Embeds pairs.

        Args:
            x: a dict of ``images`` and ``captions``, each in a form that ``encode_images`` and
                ``encode_texts`` take; a ``tf.data.Dataset`` of such dicts; or the backbone's
                inputs, as arrays or a dataset.
            batch_size: pairs at a time, 32 by default; a batched dataset keeps its own.
            **kwargs: passed to ``keras.Model.predict``.

        Returns:
            A dict of ``image_embeddings`` and ``text_embeddings``, float32,
            ``(pairs, projection_dim)``, and the other fields of a dataset.

        Raises:
            ItemError: if an item is not an image or string.
            MissingItemError: if an image file does not exist.
            InputError: if images or captions are missing, or floats have the wrong range, such as 0
                to 255.
        """
        if isinstance(x, tf.data.Dataset):
            if raw_inputs.are_model_inputs(x.element_spec):
                x = raw_datasets.check_images(x, self.preprocessor)
            else:
                x = raw_datasets.prepare_pairs(x, self.preprocessor, batch_size or 32)
            if not isinstance(given := kwargs.get("callbacks"), keras.callbacks.CallbackList):
                kwargs["callbacks"] = [*keras.tree.flatten(given or []), _EndsWithItsData()]
            with raw_datasets.one_line(self.preprocessor):
                return super().predict(x, batch_size=batch_size, **kwargs)
        elif isinstance(x, dict) and not raw_inputs.are_model_inputs(x):
            images, captions = raw_inputs.split_pairs(x)
            return {
                "image_embeddings": self.encode_images(images, batch_size or 32),
                "text_embeddings": self.encode_texts(captions, batch_size or 32),
            }
        if raw_inputs.are_model_inputs(x) and "images" in x:
            pixel_ranges.check(x["images"], self.preprocessor)
        return super().predict(x, batch_size=batch_size, **kwargs)

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike,
        load_weights: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
        **options,
    ) -> Self:
        """Loads a model from a preset, or from a checkpoint in Hugging Face's layout.

        Args:
            preset: a folder, ``"gs://..."``, ``"hf://USER/MODEL"`` or ``"kaggle://..."``, written
                by ``save_to_preset`` or holding an ``AlignModel`` of Hugging Face, such as
                ``"hf://kakaobrain/align-base"``.
            load_weights: whether to load the weights; if False, they are random.
            dtype: precision policy, such as ``"mixed_bfloat16"``; the global one by default.
            **options: arguments of the constructor that replace those of the preset. The
                temperature is one of the weights, and thus cannot be replaced.

        Returns:
            An ``AlignDualEncoder`` with its preprocessor.

        Raises:
            InputError: if it is not a preset of this class, or the hub cannot be reached.
            MissingInputError: if the folder or one of its files is missing.
        """
        with loading.opened(preset, cls.backbone_cls, cls, dtype) as loader:
            # By name: keras-hub writes a mixed policy in a form that it cannot read.
            policy = keras.config.dtype_policy().name
            return loader.load_task(cls, load_weights, True, dtype=policy, **options)

    def save_to_preset(
        self, preset_dir: str | os.PathLike, max_shard_size: float = 10, card: str = ""
    ) -> None:
        """Writes the model as a preset, as keras-hub does, with a card and ``checksums``.

        ``from_preset`` loads the preset, and ``sharing.upload_preset`` uploads it. The files appear
        in the folder only after all of them have been written. An edited card in the folder is kept
        as ``README.before.md``.

        Args:
            preset_dir: a folder, which is created if necessary.
            max_shard_size: gigabytes per file of weights.
            card: text of ``README.md``; a short one if empty.

        Raises:
            NoSpaceError: if the disk is full.
            ValueError: if the preprocessor has no vocabulary.
        """
        if self.preprocessor is not None:
            _ = self.preprocessor.vocabulary  # raises before anything is written
        with checksums.writing_into(preset_dir) as folder:
            self.backbone.check_room(folder)
            keras_hub.models.Task.save_to_preset(self, str(folder), max_shard_size)
            preset_card.write(folder, preset_dir, card or preset_card.of_dual_encoder(self))

    def has_task_weights(self) -> bool:
        """Whether there are weights outside the backbone; a hook of keras-hub."""
        return True

    def save_task_weights(self, filepath: str | os.PathLike) -> None:
        """Writes the only weight outside the backbone, the temperature; a hook of keras-hub."""
        keras.saving.save_weights(self, filepath, objects_to_skip=self._beside_task())

    def load_task_weights(self, filepath: str | os.PathLike) -> None:
        """Reads the weights written by ``save_task_weights``; a hook of keras-hub."""
        keras.saving.load_weights(self, filepath, objects_to_skip=self._beside_task())

    def _beside_task(self):
        # Otherwise Keras would also save the state of the optimizer.
        optimizers = [self.optimizer] if getattr(self, "optimizer", None) else []
        return [*keras_internals.layers_of(self.backbone), *optimizers]

    def export_to_transformers(self, path: str | os.PathLike) -> None:
        """Writes the model in the layout of Hugging Face's ``AlignModel``.

        Args:
            path: a folder, which is created if necessary.

        Raises:
            ValueError: if the layout cannot express the model: the image tower must be one of
                EfficientNet B0 to B7 or L2, as wide as the embeddings, and there must be a
                preprocessor.
        """
        transformers.export(self, path)

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "initial_temperature": self.initial_temperature,
            "min_temperature": self.min_temperature,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Self:
        """Builds a dual encoder from ``get_config``'s dictionary."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("backbone", "preprocessor")
        }
        model = cls(**{**config, "trainable": True, **parts})
        # Freezes the entire model; layers frozen inside the backbone come from its own config.
        if not config.get("trainable", True):
            model.trainable = False
        return model


class _EndsWithItsData(keras.callbacks.Callback):
    """Ends ``predict`` after the last batch; otherwise Keras would restart the data set in vain."""

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the flag that the model checks after every batch."""
        steps = self.params["steps"]
        if steps is not None and batch + 1 >= steps:
            self.model.stop_predicting = True
