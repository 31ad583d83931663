"""Presets: from local folders and hubs, through keras-hub; any failure is one clear line.

keras-hub's loaders read what ``save_to_preset`` wrote; a checkpoint in Hugging Face's layout is
read by ``align_keras.conversion``.
"""

import contextlib
import errno
import os

import keras
from keras_hub.src.utils import preset_utils

from align_keras.conversion import transformers

#: Where a preset keeps the vocabulary, as keras-hub's own tokenizers do.
TOKENIZER_FOLDER = preset_utils.TOKENIZER_ASSET_DIR


def file_of(preset, path):
    """The local path of a preset's file, fetched if it is on a hub."""
    return preset_utils.get_file(str(preset), path)


def has_file(preset, path):
    """Whether a preset has a file; fetches it if it is on a hub."""
    return preset_utils.check_file_exists(str(preset), path)


@contextlib.contextmanager
def opened(preset, backbone_cls=None, task_cls=None, dtype=None):
    """Opens a preset; what fails inside the ``with`` is raised as one line that names it.

    Args:
        preset: a local folder, ``"hf://USER/MODEL"`` or ``"kaggle://..."``.
        backbone_cls: the class of the backbone that it must hold; None if none need be in it.
        task_cls: the class of the task that it must hold, if it holds one.
        dtype: the precision policy inside the ``with``; None leaves the global one.

    Yields:
        A keras-hub preset loader, with ``load_backbone``, ``load_preprocessor`` and
        ``load_task``.

    Raises:
        ValueError: if a hub cannot be reached or refuses, or the preset is of another kind.
        FileNotFoundError: if there is no such folder, or a file in it is missing.
    """
    preset = str(preset) if isinstance(preset, os.PathLike) else preset
    with one_line(preset), dtype_policy(dtype):
        yield _loader(preset, backbone_cls, task_cls)


def _loader(preset, backbone_cls, task_cls):
    config = os.path.join(preset, preset_utils.CONFIG_FILE)
    if backbone_cls is None and os.path.isdir(preset) and not os.path.exists(config):
        return preset_utils.KerasPresetLoader(preset, {})  # of a preprocessor alone
    config = preset_utils.load_json(preset)
    if not isinstance(config, dict):
        raise ValueError(f"{preset_utils.CONFIG_FILE} holds no JSON object")
    if config.get("model_type") == transformers.MODEL_TYPE:
        return transformers.Loader(preset, config)
    loader = preset_utils.get_preset_loader(preset)
    found = loader.check_backbone_class()
    if backbone_cls is not None and not issubclass(found, backbone_cls):
        raise ValueError(f"it holds {found.__name__}, which is no {backbone_cls.__name__}")
    if task_cls is not None and has_file(preset, preset_utils.TASK_CONFIG_FILE):
        task = preset_utils.load_json(preset, preset_utils.TASK_CONFIG_FILE)
        found = preset_utils.check_config_class(task)
        if not issubclass(found, task_cls):
            raise ValueError(f"it holds {found.__name__}, which is no {task_cls.__name__}")
    return loader


@contextlib.contextmanager
def one_line(preset):
    """Raises what goes wrong inside as a ValueError or FileNotFoundError of one line."""
    if not isinstance(preset, str | os.PathLike):
        raise ValueError(f"a preset is a folder or an address such as hf://USER/MODEL: {preset!r}")
    local = "://" not in str(preset) and str(preset) not in preset_utils.BUILTIN_PRESETS
    if local and not os.path.isdir(preset):
        raise FileNotFoundError(
            f"{preset}: no such folder; give one, or hf://USER/MODEL, or kaggle://..."
        )
    try:
        yield
    except Exception as error:  # the hubs' clients raise a dozen kinds of their own
        reason = None if local else _hub_reason(error)
        if reason is not None:
            raise ValueError(f"{preset}: {reason}") from error
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        message = _first_line(error)
        raise kind(message if str(preset) in message else f"{preset}: {message}") from error


_STATUS = {
    401: "the hub has no such model, or wants you to log in",
    403: "the hub refuses access; accept the model's terms there and log in",
    404: "the hub has no such model",
    429: "the hub asks to wait; try again later",
}


def _hub_reason(error):
    """What a hub or the way to it has against a request; None if it is something else."""
    causes = list(_causes(error))
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in _STATUS:
            return _STATUS[status]
        if status is not None and status >= 500:
            return f"the hub fails (status {status}); try again later"
    if any(_is_network(cause) for cause in causes):
        return (
            f"the hub cannot be reached ({_first_line(causes[-1])}); connect to the network, or "
            "give a local folder"
        )
    return None


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_network(error):
    """Whether an error of huggingface_hub, kagglehub or a socket says that none answered."""
    names = {kind.__name__ for kind in type(error).__mro__}
    told = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "TransportError", "ConnectionError"}
    told |= {"TimeoutError", "Timeout", "ChunkedEncodingError", "SSLError", "ProxyError"}
    unreachable = (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return bool(names & told) or getattr(error, "errno", None) in unreachable


def _first_line(error):
    if isinstance(error, KeyError):
        return f"no {error} in it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def dtype_policy(policy):
    """Makes ``policy`` the global precision policy for a while; None leaves it.

    keras-hub's EfficientNet reads the global policy only.
    """
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
