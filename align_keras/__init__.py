"""ALIGN (Jia et al., 2021) in Keras 3 and TensorFlow.

Importing the package imports every public name, so that saved ``.keras`` files load. The lines that
TensorFlow prints are hidden, unless ``TF_CPP_MIN_LOG_LEVEL`` is set or TensorFlow was imported
before.

Commands first set ``ALIGN_KERAS_IMPORT=lazy``. Names are then imported on first use, flags are read
without TensorFlow, and until TensorFlow loads, a signal ends the process in one line.
"""

import contextlib
import importlib
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from align_keras import lazy, progress, quiet, signals
from align_keras.errors import BackendError
from align_keras.version import __version__

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# On CPUs without VNNI instructions, TensorFlow uses oneDNN only if it is told to. Training is up to
# 1.7 times as fast with it (benchmarks/onednn.py).
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Removed from the environment, so that child processes import normally.
_LAZY = os.environ.pop("ALIGN_KERAS_IMPORT", "") == "lazy"
if _LAZY:
    signals.end_at_once()


def check_backend(backend: str) -> None:
    """Raises BackendError unless ``backend`` is TensorFlow, which the package needs."""
    if backend != "tensorflow":
        raise BackendError(
            f"align_keras needs Keras's TensorFlow backend, not {backend}",
            remedy="set KERAS_BACKEND=tensorflow",
        )


if TYPE_CHECKING or not _LAZY:
    # The environment variable is checked first, since Keras's import fails if the backend is not
    # installed.
    check_backend(os.environ["KERAS_BACKEND"])
    with contextlib.nullcontext() if "tensorflow" in sys.modules else quiet.importing():
        import keras

    # Keras may have been imported before, with another backend.
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


def load(*modules: str) -> None:
    """Imports every public name, if the package was imported lazily.

    This takes seconds, and a command shows it. During the import, a signal ends a command at once:
    an exception in the middle of an import would print a stack trace, or look like a failed import.

    Args:
        *modules: names of modules to import after that, which take long too.
    """
    if _LAZY:
        check_backend(os.environ["KERAS_BACKEND"])
        is_first = progress.is_shown() and "tensorflow" not in sys.modules
        show = progress.announced if is_first else progress.working
        with show(lazy.LOADING), signals.ending_at_once(), lazy.importing():
            importlib.import_module("keras")
            # The variable has been removed, so that this time the imports above are executed.
            importlib.reload(sys.modules[__name__])
            for name in modules:
                importlib.import_module(name)


def __getattr__(name: str) -> Any:
    """Imports the public names when one of them is first used."""
    if name not in __all__ or name in globals() or not _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    return globals()[name]


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted({*globals(), *__all__})
