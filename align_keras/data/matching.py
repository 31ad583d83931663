"""The files that match a pattern, local or on remote storage that TensorFlow can read."""

import os

from align_keras import paths
from align_keras.remote_files import gfile_of


def matching_files(pattern: str) -> list[str]:
    """The files that match one glob pattern, sorted.

    The path of an existing file is taken literally, not as a pattern. Hidden files, statistics of
    shards and files left half-written by an interrupted run are skipped.

    Raises:
        InputError: if TensorFlow cannot read that kind of storage, or cannot reach it.
    """
    pattern = paths.without_file_scheme(pattern)
    paths.check_scheme(pattern, remote=True)
    found = []
    for path in _remote_files(pattern) if paths.scheme(pattern) else paths.matching(pattern):
        name = os.path.basename(path)
        passed_over = name.startswith(".") or name.endswith((".partial", ".json"))
        if (path == pattern or not passed_over) and not paths.path_of(path).is_dir():
            found.append(path)
    return sorted(found)


def _remote_files(pattern: str) -> list[str]:
    tries = dict.fromkeys((paths.literal_brackets(pattern), pattern))
    with gfile_of(pattern) as gfile:
        return next(filter(None, map(gfile.glob, tries)), [])
