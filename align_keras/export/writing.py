"""Writes a model for use without this package, completely or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from align_keras import checksums, progress
from align_keras.errors import InputError
from align_keras.evaluation import embedding
from align_keras.evaluation.data_sets import DEFAULT_PROMPTS
from align_keras.export import folding, model_card, towers, warm_up
from align_keras.export.outputs import CARD, check_output
from align_keras.export.signatures import Signatures
from align_keras.files import whole_folder
from align_keras.preprocessing import raw_datasets
from align_keras.preprocessing.tokenizer import write_vocabulary
from align_keras.remote_path import RemotePath

#: Export formats, by Keras's names.
FORMATS = ("tf_saved_model", "onnx", "litert")


def export(
    model: Any,
    path: str | os.PathLike[str] | RemotePath,
    format: str = "tf_saved_model",
    replace: bool = False,
    **options: Any,
) -> None:
    """Writes a model into a folder, completely or not at all, with checksums of its files.

    Args:
        model: an ``AlignDualEncoder``.
        path: path of the folder, also ``gs://...``.
        format: one of ``FORMATS``.
        replace: whether to replace an existing SavedModel.
        **options: arguments of ``write_saved_model`` or ``towers.write_towers``.

    Raises:
        InputError: if the folder holds other files, an option does not fit, or the format needs a
            package that is not installed.
        NoSpaceError: if the disk is full.
        ValueError: if the model has no preprocessor.
    """
    raw_datasets.check_preprocessor(model.preprocessor)
    check_output(path, format, replace)
    what = f"tracing and writing the {format.replace('tf_', '')}"
    with progress.working(what), whole_folder(path, replace) as folder:
        if format == "tf_saved_model":
            write_saved_model(model, folder, **options)
        else:
            towers.write_towers(model, folder, format, **options)
        checksums.write_folder(folder)


def write_saved_model(
    model: Any,
    folder: Path,
    class_names: Sequence[str] | None = None,
    prompts: Sequence[str] = DEFAULT_PROMPTS,
    fold_batch_norm: bool = False,
    warm_up_requests: bool = True,
) -> None:
    """Writes a SavedModel with the signatures of ``Signatures``.

    Args:
        model: an ``AlignDualEncoder`` with a preprocessor.
        folder: an empty folder.
        class_names: class names; None for no ``classify``.
        prompts: strings with ``{}`` for the class name.
        fold_batch_norm: whether to fold batch norms into the preceding kernels.
        warm_up_requests: whether to write warm-up requests for TF Serving.

    Raises:
        InputError: if there are fewer than two class names, or warm-up requests are wanted but
            ``tensorflow-serving-api`` is not installed.
    """
    if warm_up_requests:
        warm_up.import_apis()  # a missing package is reported before the slow part
    classes = None
    if class_names is not None:
        class_names = list(class_names)
        if len(class_names) < 2:
            raise InputError(f"give at least two, not {len(class_names)}", setting="class_names")
        classes = embedding.class_weights(model, class_names, prompts)
    signatures = Signatures(model, class_names, classes)
    if fold_batch_norm:
        signatures.backbone = folding.fold_batch_norm(model.backbone)
    archive = keras.export.ExportArchive()
    for name, spec in signatures.specs().items():
        archive.add_endpoint(name, getattr(signatures, name), [spec])
    archive.write_out(str(folder), verbose=False)
    (folder / "assets").mkdir(exist_ok=True)
    write_vocabulary(model.preprocessor.vocabulary, str(folder / "assets" / "vocabulary.txt"))
    if class_names:
        text = "".join(f"{name}\n" for name in class_names)
        (folder / "assets" / "class_names.txt").write_text(text, encoding="utf-8")
    if warm_up_requests:
        warm_up.write_requests(folder, signatures.specs(), model.preprocessor.image_size)
    card = model_card.of_saved_model(model, class_names, prompts, fold_batch_norm)
    (folder / CARD).write_text(card, encoding="utf-8")
