"""Writes a model for use without this package, whole or not at all."""

import contextlib
import shutil
from pathlib import Path

import keras

from align_keras.evaluation import embedding
from align_keras.evaluation.data_sets import DEFAULT_PROMPTS
from align_keras.export import folding, model_card, towers, warm_up
from align_keras.export.signatures import Signatures
from align_keras.preprocessing import raw_datasets
from align_keras.preprocessing.tokenizer import write_vocabulary

#: What ``export`` writes, by Keras's names.
FORMATS = ("tf_saved_model", "onnx", "litert")
#: Where a SavedModel has its card.
CARD = "assets/README.md"


def export(model, path, format="tf_saved_model", **options):
    """Writes a model into a new folder; the arguments are those of ``AlignDualEncoder.export``.

    Raises:
        ValueError: if there is something in the folder, the model has no preprocessor, or an
            option does not fit.
        ImportError: if the format needs a package that is not here.
    """
    raw_datasets.check_preprocessor(model.preprocessor)
    check_output(path)
    with new_folder(path) as folder:
        if format == "tf_saved_model":
            write_saved_model(model, folder, **options)
        else:
            towers.write_towers(model, folder, format, **options)


def write_saved_model(
    model,
    folder,
    class_names=None,
    prompts=DEFAULT_PROMPTS,
    fold_batch_norm=False,
    warm_up_requests=True,
):
    """Writes a SavedModel with the signatures of ``Signatures``.

    Args:
        model: an ``AlignDualEncoder`` with a preprocessor.
        folder: an empty folder.
        class_names: strings; None leaves ``classify`` out.
        prompts: strings with ``{}`` for the class name.
        fold_batch_norm: whether batch norms go into the kernels before them.
        warm_up_requests: whether to write requests that TF Serving warms up with.

    Raises:
        ValueError: if there are fewer than two class names.
        ImportError: if warm-up requests need ``tensorflow-serving-api``.
    """
    if warm_up_requests:
        warm_up.import_apis()  # what is missing is told before the long part
    classes = None
    if class_names is not None:
        class_names = list(class_names)
        if len(class_names) < 2:
            raise ValueError(f"--class-names: give two at least, not {len(class_names)}")
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


@contextlib.contextmanager
def new_folder(path):
    """Yields a folder beside ``path`` that takes its place once all is written."""
    # A link to an empty folder cannot be replaced, what it leads to can; "." has no name.
    path = Path(path).resolve()
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.is_dir():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(path):
    """Raises a ValueError unless ``path`` is a new or an empty folder on this machine."""
    if "://" in str(path):
        raise ValueError(f"--output: {path} is no local folder; give one, and copy it there")
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"--output: {path} exists; give a new folder, or remove it")
