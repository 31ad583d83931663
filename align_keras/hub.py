"""Files of presets in local folders and on hubs, through keras-hub; errors are one clear line."""

import contextlib
import errno
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from align_keras import checksums, files, keras_internals, paths, preset_copies, preset_folders
from align_keras.errors import InputError, MissingInputError, Place

#: Folder of the vocabulary in a preset, as for keras-hub's own tokenizers.
TOKENIZER_FOLDER = keras_internals.TOKENIZER_FOLDER
#: In bytes; larger files of a preset are weights.
WITHOUT_WEIGHTS = 1 << 25


def file_of(preset: str | os.PathLike, path: str) -> str:
    """The local path of a preset's file; downloads it if the preset is on a hub."""
    return keras_internals.get_file(str(preset), path)


def has_file(preset: str | os.PathLike, path: str) -> bool:
    """Whether a preset has a file; downloads it if the preset is on a hub."""
    return keras_internals.check_file_exists(str(preset), path)


def read_json(preset: str | os.PathLike, path: str) -> Any:
    """The contents of a preset's JSON file; downloads it if the preset is on a hub.

    Raises:
        InputError: if the file is not JSON.
    """
    try:
        return keras_internals.load_json(str(preset), path)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise fault(path, f"not JSON ({error})") from None


def write_json(path: str | os.PathLike, name: str, content: Any) -> None:
    """Writes a JSON file into a local folder, completely or not at all."""
    files.write_whole(os.path.join(path, name), json.dumps(content, indent=2) + "\n")


def check_files(preset: str | os.PathLike, read_up_to: int | None = None) -> None:
    """Compares the files of a local folder with its checksums, if it has any.

    Args:
        preset: a folder, or an address, for which nothing is checked.
        read_up_to: as in ``checksums.faults``.

    Raises:
        InputError: if a file has changed since it was written.
    """
    if not paths.scheme(preset) and os.path.isdir(preset):
        checksums.check(preset, read_up_to=read_up_to)


def fault(file: str, problem: str, name: str = "") -> InputError:
    """The error for a preset's file; ``one_line`` adds the preset.

    Args:
        file: path of the file in the preset.
        problem: what is wrong, and what was found.
        name: name of a value in the file, such as ``text_config.hidden_act``.
    """
    return InputError(problem, Place(member=file, column=name))


def demand(config: dict, file: str, part: str, allowed: Mapping[str, Collection]) -> None:
    """Checks that values of a configuration are among the allowed ones.

    Args:
        config: the configuration.
        file: name of the configuration's file in the preset.
        part: part of the file, such as ``text_config``; empty for the entire file.
        allowed: allowed values by name.

    Raises:
        InputError: if a value is not allowed; the place has the file and the name of the value.
    """
    for name, values in allowed.items():
        if config[name] not in list(values):
            choices = ", ".join(str(value) for value in values)
            column = f"{part}.{name}" if part else name
            raise fault(file, f"{config[name]!r} is not supported, only {choices}", column)


def read_config(preset: str | os.PathLike) -> dict | None:
    """A preset's ``config.json``; None if a local folder has none, such as a preprocessor's.

    Raises:
        InputError: if the file does not hold a JSON object.
    """
    path = os.path.join(str(preset), keras_internals.CONFIG_FILE)
    if os.path.isdir(preset) and not os.path.exists(path):
        return None
    config = read_json(preset, keras_internals.CONFIG_FILE)
    if not isinstance(config, dict):
        raise fault(keras_internals.CONFIG_FILE, "is not a JSON object")
    return config


def keras_loader(preset: str | os.PathLike, config: dict | None) -> keras_internals.PresetLoader:
    """keras-hub's loader for a preset with this ``config.json``, or without one."""
    if config is None:
        return keras_internals.loader_without_config(str(preset))
    loader = keras_internals.get_preset_loader(str(preset))
    loader.check_backbone_class()
    return loader


@contextlib.contextmanager
def one_line(preset: str | os.PathLike) -> Iterator[str]:
    """Turns errors inside the block into one-line errors that name the preset.

    An ``InputError`` raised inside may name a file of the preset as
    ``Place(member="config.json")``.

    Yields:
        The preset to read inside the block. For remote storage such as ``gs://``, this is a local
        copy, since Keras and keras-hub need local files.

    Raises:
        InputError: if a hub cannot be reached or denies access, or the block raises an error.
        MissingInputError: if the folder or one of its files is missing.
    """
    if not isinstance(preset, str | os.PathLike):
        raise InputError(
            f"a preset is a folder or an address such as hf://USER/MODEL, not {preset!r}"
        )
    address = str(preset)
    paths.check_scheme(address, remote=True, hubs=True)
    found = paths.without_file_scheme(address)
    local = not paths.scheme(found) and found not in keras_internals.BUILTIN_PRESETS
    if local:
        preset_folders.check_folder(found)
    if paths.is_remote(address):
        local, found = True, preset_copies.of(address)
    try:
        yield found
    except InputError as error:
        error.place = _inside(address, found, error.place or Place())
        raise
    except Exception as error:  # the clients of the hubs raise many kinds of errors
        problem, remedy = (None if local else _hub_reason(error)) or (_first_line(error), "")
        kind = MissingInputError if isinstance(error, FileNotFoundError) else InputError
        raise kind(problem, Place(address), remedy) from error


def _inside(preset: str, folder: str, place: Place) -> Place:
    """The place of a fault in a preset; the file may be a cached copy from a hub.

    The path of such a copy becomes the member of the preset.
    """
    if not place.file or place.file in (preset, folder):
        return Place(preset, place.row, place.member, place.column)
    within = place.file.startswith(folder + os.sep)
    name = os.path.relpath(place.file, folder) if within else os.path.basename(place.file)
    return Place(preset, place.row, place.member or name, place.column)


_STATUS = {
    401: ("the hub has no such model, or requires you to log in", ""),
    403: ("the hub refuses access", "accept the model's terms there and log in"),
    404: ("the hub has no such model", ""),
    429: ("the hub limits the rate of requests", "try again later"),
}


def _hub_reason(error: BaseException) -> tuple[str, str] | None:
    """Why a hub or the network failed, and a remedy; None if the error has another reason."""
    causes = list(_causes(error))
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in _STATUS:
            return _STATUS[status]
        if status is not None and status >= 500:
            return f"the hub failed (status {status})", "try again later"
    if any(_is_network(cause) for cause in causes):
        return (
            f"the hub cannot be reached ({_first_line(causes[-1])})",
            "connect to the network, or give a local folder",
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_network(error: BaseException) -> bool:
    """Whether an error of huggingface_hub, kagglehub or a socket means that there was no answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    known = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "TransportError", "ConnectionError"}
    known |= {"TimeoutError", "Timeout", "ChunkedEncodingError", "SSLError", "ProxyError"}
    unreachable = (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return bool(names & known) or getattr(error, "errno", None) in unreachable


def _first_line(error: BaseException) -> str:
    """The first line of another library's error message."""
    if isinstance(error, KeyError):
        return f"no {error} in the file"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
