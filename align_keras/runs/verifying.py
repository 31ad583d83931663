"""Compares the outputs of commands with their checksums; ``recipes/verify.py`` runs it."""

import dataclasses
import os
from collections.abc import Iterator

from align_keras import checksums, paths, uploads
from align_keras.data import shard_checksums
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.remote_path import RemotePath
from align_keras.wording import counted

#: The kind of a folder, by a file in it; the first file that exists decides.
_KINDS = {
    "index.json": "index",
    "saved_model.pb": "exported model",
    "image_tower.onnx": "exported model",
    "image_tower.tflite": "exported model",
    "settings.json": "run",
    "config.json": "preset",
    "preprocessor.json": "preset",
}
_SET = "set of shards"
# Kinds that have their own checksum files in a shared folder, by the ending of the file.
_OWN_LISTS = {shard_checksums.END: _SET, f".{checksums.NAME}": "checkpoint"}
# Folders for unfinished work.
_UNFINISHED = (".partial", ".unfinished", "unfinished")
# A damaged checkpoint that its run has set aside.
_ASIDE = ".aside"


@dataclasses.dataclass(frozen=True)
class Verified:
    """The result for one checksum file, or for a folder without one."""

    path: str
    """Path of the folder, or ``DIR/train`` for a set of shards."""
    kind: str
    """``index``, ``preset``, ``run``, ``checkpoint``, ``exported model``, ``set of shards``,
    ``file`` or ``folder``."""
    files: int | None
    """Number of files in the checksum file; None if there is none."""
    bytes: int
    """Total size of these files."""
    faults: tuple[InputError, ...]
    """One error for each file that has changed."""

    def __str__(self) -> str:
        """The result in one line."""
        if self.files is None:
            return f"{self.path}: {self.kind} without checksums"
        size = f"{counted(self.files, 'file')}, {self.bytes / 2**20:,.1f} MiB"
        found = f"{len(self.faults):,} damaged" if self.faults else "all unchanged"
        return f"{self.path}: {self.kind}, {size}, {found}"


def verify(path: str) -> list[Verified]:
    """Reads all files of an index, a preset, a run, an exported model or a set of shards.

    Args:
        path: a folder, which may contain several of these; for shards also a pattern, a single
            shard, or a path prefix.

    Returns:
        One result for each checksum file and for each folder without one.

    Raises:
        MissingInputError: if nothing of that name exists.
    """
    is_remote = paths.is_remote(path)
    path = paths.absolute(path) if is_remote else paths.without_file_scheme(path)
    if paths.path_of(path).is_dir():
        return _verify_folder(path)
    if shard_checksums.list_of(path).exists():
        return [_verify_list(str(shard_checksums.list_of(path)))]
    files = [path] if paths.path_of(path).exists() else _matching(path)
    if not files:
        raise MissingInputError("no such file or folder", Place(path))
    outputs = dict.fromkeys(shard_checksums.set_of(file) or file for file in files)
    return [_verify_set(output) for output in outputs]


def _matching(pattern: str) -> list[str]:
    if not paths.is_remote(pattern):
        return sorted(paths.matching(pattern))
    from align_keras.data.matching import matching_files  # with TensorFlow

    return matching_files(pattern)


def _verify_folder(folder: str) -> list[Verified]:
    ends = (checksums.NAME, shard_checksums.END)
    lists = [
        os.path.join(place, name)
        for place, names in _folders(folder)
        for name in sorted(names)
        if name.endswith(ends)
    ]
    found = [_verify_list(path) for path in lists]
    # A run has several parts. Its preset may have been written by an older version.
    expected = [folder]
    if _kind_of(folder) == "run":
        preset = os.path.join(folder, "preset")
        is_there = paths.path_of(preset).is_dir()
        expected = [preset] if is_there else [] if found else [folder]
    without = [path for path in expected if not _has_list(path, lists)]
    return found + [Verified(path, _kind_of(path), None, 0, ()) for path in without]


def _folders(folder: str) -> Iterator[tuple[str, list[str]]]:
    """A folder and its subfolders with their files, without unfinished and set-aside ones."""
    path = paths.path_of(folder)
    if isinstance(path, RemotePath):
        for found, names in uploads.walk(path):
            if not any(map(_is_passed_over, str(found).removeprefix(str(path)).split("/"))):
                yield str(found), names
        return
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_passed_over(name))
        yield place, names


def _is_passed_over(name: str) -> bool:
    return name.endswith(_UNFINISHED) or _ASIDE in name


def _has_list(folder: str, lists: list[str]) -> bool:
    if _kind_of(folder) == "folder":
        return bool(lists)
    return checksums.list_of(folder) in lists


def _verify_set(output: str) -> Verified:
    path = shard_checksums.list_of(output)
    if path.exists():
        return _verify_list(str(path))
    kind = "file" if paths.path_of(output).exists() else _SET
    return Verified(output, kind, None, 0, ())


def _verify_list(path: str) -> Verified:
    owner = os.path.dirname(path)
    kind = _kind_of(owner)
    for end, own_kind in _OWN_LISTS.items():
        if path.endswith(end):
            owner, kind = path.removesuffix(end), own_kind
    try:
        listed = (checksums.read(path) or {}).values()
        faults = tuple(checksums.faults(path))
    except InputError as error:
        return Verified(owner, kind, 1, 0, (error,))
    return Verified(owner, kind, len(listed), sum(own.bytes for own in listed), faults)


def _kind_of(folder: str) -> str:
    path = paths.path_of(folder)
    is_there = (kind for name, kind in _KINDS.items() if (path / name).is_file())
    return next(is_there, "folder")
