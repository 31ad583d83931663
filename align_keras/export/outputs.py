"""Where an export may be written; checked before TensorFlow loads."""

import os

from align_keras import checksums, files, paths
from align_keras.errors import InputError, Place
from align_keras.remote_path import RemotePath

#: Path of the card in a SavedModel.
CARD = "assets/README.md"
# Files that TensorFlow and this package write into a SavedModel.
_PARTS_OF_A_SAVED_MODEL = {
    "assets",
    "assets.extra",
    checksums.NAME,
    "fingerprint.pb",
    "keras_metadata.pb",
    "saved_model.pb",
    "variables",
}


def check_output(
    path: str | os.PathLike[str] | RemotePath,
    format: str = "tf_saved_model",
    replace: bool = False,
) -> None:
    """Raises an InputError unless ``path`` is new or an empty folder.

    The path of a SavedModel must not contain a character that ``tf.saved_model.load`` would read as
    a pattern. With ``replace``, the folder may hold a SavedModel and nothing else.
    """
    place = Place(str(path))
    path = paths.path_of(path)
    if format == "tf_saved_model" and not paths.is_plain(path):
        found = next(letter for letter in str(path) if letter in paths.PATTERN_CHARACTERS)
        raise InputError(
            f"TensorFlow reads {found} as a pattern, and would not load a SavedModel from there",
            place,
            "give a path without it",
        )
    if replace and (path / "saved_model.pb").is_file():
        others = sorted({entry.name for entry in path.iterdir()} - _PARTS_OF_A_SAVED_MODEL)
        if not others:
            return
        raise InputError(
            f"it holds {others[0]} besides a SavedModel; that file would be lost",
            place,
            "give a new folder, or move that file away",
        )
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        files.remove_left_work(path)
        raise InputError("already exists", place, "give a new folder, or remove it")
