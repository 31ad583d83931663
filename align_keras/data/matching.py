"""The files that a pattern names, on this machine or on another that TensorFlow reads from."""

import os

from align_keras import paths
from align_keras.remote_files import gfile_of


def matching_files(pattern: str) -> list[str]:
    """The files of one glob pattern, sorted.

    An existing path is taken literally, not as a pattern. Hidden files are
    passed over, as are a shard's statistics and what a run that was cut off left half-written.

    Raises:
        InputError: if they are where TensorFlow does not read, or cannot be reached.
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
