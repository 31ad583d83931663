"""Files of presets, from local folders and hubs through keras-hub; what fails is one clear line."""

import contextlib
import errno
import os

from keras_hub.src.utils import preset_utils

#: Where a preset keeps the vocabulary, as keras-hub's own tokenizers do.
TOKENIZER_FOLDER = preset_utils.TOKENIZER_ASSET_DIR


def file_of(preset, path):
    """The local path of a preset's file, fetched if it is on a hub."""
    return preset_utils.get_file(str(preset), path)


def has_file(preset, path):
    """Whether a preset has a file; fetches it if it is on a hub."""
    return preset_utils.check_file_exists(str(preset), path)


def read_json(preset, path):
    """A preset's JSON file; fetches it if it is on a hub."""
    return preset_utils.load_json(str(preset), path)


def read_config(preset):
    """A preset's ``config.json``; empty for a local folder without one, as of a preprocessor alone.

    Raises:
        ValueError: if it holds no JSON object.
    """
    path = os.path.join(str(preset), preset_utils.CONFIG_FILE)
    if os.path.isdir(preset) and not os.path.exists(path):
        return {}
    config = read_json(preset, preset_utils.CONFIG_FILE)
    if not isinstance(config, dict):
        raise ValueError(f"{preset_utils.CONFIG_FILE} holds no JSON object")
    return config


def keras_loader(preset, config):
    """keras-hub's loader of a preset with this ``config.json``."""
    preset = str(preset)
    if not config:
        return preset_utils.KerasPresetLoader(preset, {})
    loader = preset_utils.get_preset_loader(preset)
    loader.check_backbone_class()
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
