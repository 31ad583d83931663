"""Keras's methods ``export`` and ``save``, implemented by ``align_keras.export``."""

import os
from typing import Any

import keras

from align_keras import files, paths
from align_keras.errors import InputError, Place
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath


class Exportable(keras.Model):
    """A model that can be exported for TensorFlow Serving, ONNX Runtime and LiteRT."""

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **options,
    ) -> None:
        """Writes the model in a form that can be used without this package.

        ``"tf_saved_model"`` writes a SavedModel for TensorFlow Serving, with warm-up requests and a
        card. It takes strings and image files, and returns embeddings and class probabilities
        (``align_keras.export.signatures``). ``"onnx"`` and ``"litert"`` write both towers into a
        folder; these take pixels and word pieces.

        Args:
            filepath: a new or empty folder. For TensorFlow Serving, its name must be a number.
            format: one of these formats, or another format of Keras.
            verbose: whether to print where the model was written.
            input_signature: as in ``keras.Model.export``, which is called if this is given, or for
                other formats.
            **options: options of the format. A SavedModel has ``class_names`` (strings) and
                ``prompts`` for ``classify``, ``fold_batch_norm`` and ``warm_up_requests``. LiteRT
                has ``quantize``, ``"float16"`` or ``"int8"``.

        Raises:
            InputError: if the folder is not empty, an option does not fit, or the format needs a
                package that is not installed.
            ValueError: if the model has no preprocessor.
        """
        # The only import from a higher layer: `export` is Keras's name for the method, and a model
        # that is never exported need not load `align_keras.export`.
        from align_keras.export import writing

        if format not in writing.FORMATS or input_signature is not None:
            super().export(filepath, format, verbose, input_signature, **options)
            return
        writing.export(self, filepath, format, **options)
        if verbose:
            print(f"{filepath}: written")

    def save(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **options,
    ) -> None:
        """Saves the model: Keras writes a ``.keras`` file, a folder becomes a SavedModel.

        ``model.save("FOLDER")`` and ``model.save("FOLDER/1")`` write the same as ``export``, for
        TensorFlow Serving. A SavedModel cannot be trained further. To continue training, keep a
        ``.keras`` file or a preset.

        Args:
            filepath: ``NAME.keras`` or ``NAME.h5``, written by ``keras.Model.save``; or a name
                without a suffix, for a SavedModel.
            overwrite: whether to replace an existing file or SavedModel. A SavedModel is replaced
                only after the new one is complete. Other folders must be empty.
            zipped: as in ``keras.Model.save``, which is called if this is given.
            **options: passed to ``keras.Model.save``, or to ``export`` for a SavedModel.

        Raises:
            InputError: as in ``export``.
            ValueError: if the name has another suffix, or there is no preprocessor.
        """
        if str(filepath).startswith("hf://"):
            super().save(filepath, overwrite=overwrite, zipped=zipped, **options)
            return
        path = paths.path_of(filepath)
        if zipped is not None or path.suffix:
            self._save_as_keras(path, overwrite, zipped, options)
            return
        from align_keras.export import writing

        writing.export(self, path, replace=overwrite, **options)

    def _save_as_keras(
        self, path: AnyPath, overwrite: bool, zipped: bool | None, options: dict[str, Any]
    ) -> None:
        if not isinstance(path, RemotePath):
            super().save(path, overwrite=overwrite, zipped=zipped, **options)
            return
        # Keras supports only Google's and Hadoop's file systems among those of TensorFlow.
        if path.exists() and not overwrite:
            raise InputError("already exists", Place(str(path)), "give a new name")
        files.write_whole(
            path, lambda local: super(Exportable, self).save(local, zipped=zipped, **options)
        )
