"""ALIGN (Jia et al., 2021) in Keras 3 and TensorFlow.

Importing the package imports every public name, so that saved ``.keras`` files load. TensorFlow's
lines are hidden, unless ``TF_CPP_MIN_LOG_LEVEL`` is set or TensorFlow was imported before.

Commands set ``ALIGN_KERAS_IMPORT=lazy`` first: then names are imported when they are used, and
flags are read without TensorFlow, and until then a signal ends the process in one line.
"""

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from align_keras import lazy, quiet, signals
from align_keras.errors import BackendError
from align_keras.version import __version__

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

# Taken out of the environment: child processes import as usual.
_LAZY = os.environ.pop("ALIGN_KERAS_IMPORT", "") == "lazy"
if _LAZY:
    signals.end_at_once()


def check_backend(backend: str) -> None:
    """Raises BackendError unless it is the backend that the package needs."""
    if backend != "tensorflow":
        raise BackendError(
            f"align_keras needs Keras's TensorFlow backend, not {backend}",
            remedy="set KERAS_BACKEND=tensorflow",
        )


if TYPE_CHECKING or not _LAZY:
    # First what the environment says: a backend that is not installed fails in Keras's import.
    check_backend(os.environ["KERAS_BACKEND"])
    with contextlib.nullcontext() if "tensorflow" in sys.modules else quiet.importing():
        import keras

    # Keras may have been imported before.
    check_backend(keras.backend.backend())

    from align_keras.models.backbone import AlignBackbone, build_backbone
    from align_keras.models.dual_encoder import AlignDualEncoder
    from align_keras.models.image_classifier import AlignImageClassifier
    from align_keras.models.image_encoder import ImageEncoder, build_image_encoder
    from align_keras.models.text_encoder import TextEncoder, build_text_encoder
    from align_keras.optimizers.lamb import Lamb
    from align_keras.optimizers.layerwise_sgd import LayerwiseSGD
    from align_keras.optimizers.schedules import WarmupLinearDecay
    from align_keras.preprocessing.preprocessor import AlignPreprocessor

__all__ = [
    "AlignBackbone",
    "AlignDualEncoder",
    "AlignImageClassifier",
    "AlignPreprocessor",
    "ImageEncoder",
    "Lamb",
    "LayerwiseSGD",
    "TextEncoder",
    "WarmupLinearDecay",
    "__version__",
    "build_backbone",
    "build_image_encoder",
    "build_text_encoder",
]


def load() -> None:
    """Imports every public name, if the package was imported lazily.

    It takes seconds, in which a signal ends a command at once: an exception in the middle of an
    import would be a stack trace, or be taken for a failed import.
    """
    if _LAZY:
        check_backend(os.environ["KERAS_BACKEND"])
        with signals.ending_at_once(), lazy.importing():
            importlib.import_module("keras")  # a command says so
            # The variable is gone, so this time the imports above are executed.
            importlib.reload(sys.modules[__name__])


def __getattr__(name: str) -> Any:
    """Imports the public names when the first of them is used."""
    if name not in __all__ or name in globals() or not _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    return globals()[name]


def __dir__() -> list[str]:
    """Lists public names, imported or not."""
    return sorted({*globals(), *__all__})
