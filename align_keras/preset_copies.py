"""Local copies of presets on remote file systems, which keras-hub cannot read.

A process copies a preset once, and again only if the preset has changed. The copies are removed
when the process ends.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from align_keras import full_disk, uploads
from align_keras.errors import MissingInputError, Place
from align_keras.remote_path import RemotePath, RemoteState

# Every preset has one of these files.
_NEEDED = ("config.json", "preprocessor.json")
_copies: dict[RemotePath, tuple[dict[str, RemoteState], str]] = {}


def of(address: str) -> str:
    """A local folder with copies of the files of a preset.

    Raises:
        MissingInputError: if the folder does not exist or is not a preset.
        NoSpaceError: if the disk for temporary files is full.
    """
    path = RemotePath(address)
    if not path.is_dir():
        raise MissingInputError("no such folder", Place(address))
    # Checked before copying, since the folder may hold other large files.
    if not any((path / name).is_file() for name in _NEEDED):
        raise MissingInputError(f"no {_NEEDED[0]} in the folder", Place(address))
    states = {name: (path / name).stat() for name in uploads.files_below(path)}
    if path in _copies:
        known, folder = _copies[path]
        if known == states:
            return folder
        _remove(path)
    folder = tempfile.mkdtemp()
    _copies[path] = states, folder
    try:
        with full_disk.reported(folder):
            uploads.fetched(path, Path(folder), states)
    except BaseException:
        _remove(path)
        raise
    return folder


def _remove(path: RemotePath) -> None:
    shutil.rmtree(_copies.pop(path)[1], ignore_errors=True)


@atexit.register
def _remove_all() -> None:
    for path in list(_copies):
        _remove(path)
