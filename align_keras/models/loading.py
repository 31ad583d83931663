"""Opens presets, either keras-hub's files or a checkpoint in Hugging Face's layout."""

import contextlib
import os
from collections.abc import Iterator

import keras

from align_keras import hub, keras_internals
from align_keras.errors import InputError, MissingInputError
from align_keras.models.conversion import transformers
from align_keras.models.precision import forced_policy
from align_keras.preprocessing.hugging_face import MODEL_TYPE


@contextlib.contextmanager
def opened(
    preset: str | os.PathLike,
    backbone_cls: type | None = None,
    task_cls: type | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> Iterator[keras_internals.PresetLoader]:
    """Opens a preset. Errors inside the block are raised as one line that names the preset.

    The files of a local folder with checksums are verified first.

    Args:
        preset: a folder, ``"gs://..."``, ``"hf://USER/MODEL"`` or ``"kaggle://..."``.
        backbone_cls: the required class of the backbone; None if the preset need not hold one.
        task_cls: the required class of the task, if the preset holds one.
        dtype: the precision policy inside the block; None leaves the global one.

    Yields:
        A keras-hub preset loader, with ``load_backbone``, ``load_preprocessor`` and
        ``load_task``.

    Raises:
        InputError: if a hub cannot be reached or denies access, the preset has another class, or a
            file has changed since it was written.
        MissingInputError: if the folder or one of its files is missing.
    """
    preset = str(preset) if isinstance(preset, os.PathLike) else preset
    with hub.one_line(preset) as found, forced_policy(dtype):
        hub.check_files(found)
        yield _loader(found, backbone_cls, task_cls)


def _loader(preset, backbone_cls, task_cls):
    config = hub.read_config(preset)
    if config is None and backbone_cls is not None:
        raise MissingInputError(f"no {keras_internals.CONFIG_FILE} in the preset")
    if config and config.get("model_type") == MODEL_TYPE:
        return transformers.Loader(preset, config)
    loader = hub.keras_loader(preset, config)
    if backbone_cls is None:
        return loader
    found = loader.check_backbone_class()
    if not issubclass(found, backbone_cls):
        raise InputError(f"it holds {found.__name__}, but {backbone_cls.__name__} is needed")
    if task_cls is not None and hub.has_file(preset, keras_internals.TASK_CONFIG_FILE):
        task = hub.read_json(preset, keras_internals.TASK_CONFIG_FILE)
        found = keras_internals.check_config_class(task)
        if not issubclass(found, task_cls):
            raise InputError(f"it holds {found.__name__}, but {task_cls.__name__} is needed")
    return loader
