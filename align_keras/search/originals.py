"""The files of indexed images, so that a page can show them at full size.

An index may come from others and name any file. The user must therefore state where the images are,
and no file outside that folder is opened.
"""

import os
from pathlib import Path

from align_keras.data.examples import image_files
from align_keras.errors import InputError, MissingInputError, Place

#: Maximum length of the longer side as displayed, in pixels.
MAX_SIZE = 4_096
_MAX_FILE_BYTES = 100 << 20


class Originals:
    """Image files in a folder, by their names in an index.

    Args:
        images: the indexed data: a folder, or a table with its images in or below the same folder.

    Raises:
        MissingInputError: if the folder or table does not exist.
        InputError: if it is not on this machine.
    """

    def __init__(self, images: str | Path) -> None:
        if "://" in str(images) or str(images).startswith("tfds:"):
            raise InputError(
                "is not a folder or table of this machine",
                Place(str(images)),
                "leave it out to show thumbnails only",
            )
        path = Path(images).expanduser()
        if not path.exists():
            raise MissingInputError("no such folder or table", Place(str(images)))
        self._root = (path if path.is_dir() else path.parent).resolve()

    def has(self, name: str) -> bool:
        """Whether a file of that name exists."""
        return self._path(name) is not None

    def read(self, name: str) -> bytes:
        """The bytes of a file; empty if it is missing, too large or unreadable."""
        path = self._path(name)
        try:
            if path is None or path.stat().st_size > _MAX_FILE_BYTES:
                return b""
            return image_files.read_file(path)
        except (OSError, ValueError):
            return b""

    def _path(self, name: str) -> Path | None:
        """A file below the folder, or None. Links must not lead out of the folder."""
        try:
            path = Path(os.path.realpath(self._root / name))
            is_there = path.is_relative_to(self._root) and path.is_file()
        except (OSError, ValueError):
            return None
        return path if is_there and image_files.is_image(path.name) else None
