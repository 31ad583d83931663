"""The trained model named by a setting: a preset, or the preset of a run."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import align_keras
from align_keras import paths, preset_folders, progress
from align_keras.errors import InputError, MissingInputError, Place, concerning
from align_keras.models import litert

if TYPE_CHECKING:
    from align_keras.models.dual_encoder import AlignDualEncoder

T = TypeVar("T")


def find_preset(model: str) -> str:
    """The preset of a run's directory; any other argument is returned unchanged.

    Raises:
        MissingInputError: if the directory belongs to a run without a preset.
    """
    if paths.scheme(model) and not paths.is_remote(model):
        return str(model)
    folder = paths.path_of(model)
    if (folder / "preset").is_dir():
        return str(folder / "preset")
    if (folder / "settings.json").is_file():
        raise MissingInputError(f"the run {model} has no preset/ yet", remedy="let it finish")
    return str(model)


def check_model(model: str) -> None:
    """Checks that the folder of a model exists, before TensorFlow loads; skips remote models.

    Raises:
        MissingInputError: if the folder does not exist or holds no model, or as in ``find_preset``.
    """
    if not paths.scheme(model):
        found = find_preset(model)
        preset_folders.check_folder(found)
        if not os.path.exists(os.path.join(found, preset_folders.CONFIG)):
            raise MissingInputError(
                f"neither a run nor a preset: it has no {preset_folders.CONFIG} and no preset/",
                Place(model),
                "give the directory of a run, a preset, or hf://USER/MODEL",
            )


def check_tower(preset: str) -> None:
    """Like ``check_model``, for a tower; a name without a slash may be a preset of keras-hub."""
    if os.sep in preset and not paths.scheme(preset):
        preset_folders.check_folder(preset)


def from_preset(load: Callable[..., T], model: str, **options: Any) -> T:
    """Returns ``load(preset, **options)``; ``load`` is the ``from_preset`` of a class.

    Raises:
        InputError: if the preset does not exist or does not load.
    """
    preset = find_preset(model)
    try:
        return load(preset, **options)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise MissingInputError(str(error)) from error
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def load_model(model: str, runtime: str = "tensorflow", **options: Any) -> "AlignDualEncoder":
    """Loads a dual encoder with its preprocessor; announces it on standard error.

    Args:
        model: a preset (a folder, ``gs://...``, ``hf://...`` or ``kaggle://...``), or the directory
            of a run.
        runtime: library that computes embeddings, as in ``AlignDualEncoder.use_runtime``.
        **options: arguments of ``AlignDualEncoder.from_preset``.

    Raises:
        InputError: as in ``from_preset`` and ``AlignDualEncoder.use_runtime``.
    """
    with concerning("runtime"):
        litert.check_runtime(runtime)
    check_model(model)
    progress.tell(f"loading {model}")
    align_keras.load()
    from align_keras.models.dual_encoder import AlignDualEncoder

    with progress.working(f"loading {model}"):
        loaded = from_preset(AlignDualEncoder.from_preset, model, **options)
    with concerning("runtime"):
        loaded.use_runtime(runtime)
    return loaded
