"""Local copies of presets on file systems of TensorFlow's, which keras-hub does not read.

A preset is copied once in a process, and again only if it has changed. At the end the copies go.
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
    """A local folder with the files of a preset.

    Raises:
        MissingInputError: if there is no such folder, or it is not a preset.
        NoSpaceError: if the disk for temporary files is full.
    """
    path = RemotePath(address)
    if not path.is_dir():
        raise MissingInputError("no such folder", Place(address))
    # Before all is copied that lies in some other folder.
    if not any((path / name).is_file() for name in _NEEDED):
        raise MissingInputError(f"no {_NEEDED[0]} in it", Place(address))
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
