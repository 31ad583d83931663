"""Image files: which names count, how folders are walked, how files and members are read."""

import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from align_keras import paths
from align_keras.errors import MissingInputError

#: Endings of image files, in lower case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
#: A longer file is not a photograph; a megabyte of an archive can unpack to gigabytes.
MAX_FILE_BYTES = 1 << 28
#: What zip raises on a damaged, encrypted or unknown member, and the file system on a file.
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over: what systems leave beside files."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def walk(folder: str | Path) -> Iterator[str]:
    """Yields the paths of all images below a folder.

    Links are followed; a folder that they lead to again is read once. Hidden files and folders
    are passed over.
    """
    seen, waiting = set(), [os.fspath(folder)]
    while waiting:
        current = waiting.pop()
        found = os.stat(current)
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        # In order, so that of two ways to a folder it is always the same that counts.
        entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        entries = [entry for entry in entries if not is_hidden(entry.name)]
        waiting.extend(entry.path for entry in reversed(entries) if _is_folder(entry))
        for entry in entries:
            if is_image(entry.name) and not _is_folder(entry):
                yield entry.path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def state(file: str | Path) -> tuple[int, ...]:
    """Size and time of change of a file; empty if it is not there or a link to itself."""
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns


def read_file(path: str | Path) -> bytes:
    """The bytes of a regular file of a photograph's size; OSError otherwise."""
    found = os.stat(path)
    # A pipe would block for ever.
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a file")
    if found.st_size > MAX_FILE_BYTES:
        raise OSError(f"more than {MAX_FILE_BYTES >> 20} MiB")
    return Path(path).read_bytes()


class ImageFolder:
    """Reads image files from a folder, and members of the zip archives in it.

    Args:
        directory: the folder.

    Raises:
        MissingInputError: if it does not exist.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = paths.local(directory)
        if not self.directory.is_dir():
            raise MissingInputError(f"no folder {directory}")
        self._archives: dict[str, zipfile.ZipFile] = {}

    def read(self, image: str, archive: str = "") -> bytes:
        """The bytes of a file, or of a member of ``archive``; raises one of ``UNREADABLE``."""
        if not archive:
            return read_file(self.directory / image)
        if archive not in self._archives:
            # Opened once: opening reads the list of all members.
            self._archives[archive] = zipfile.ZipFile(self.directory / archive)
        try:
            member = self._archives[archive].getinfo(image)
        except KeyError:
            raise FileNotFoundError(f"{archive}: {image}") from None
        if member.file_size > MAX_FILE_BYTES:
            raise zipfile.BadZipFile(f"more than {MAX_FILE_BYTES >> 20} MiB")
        return self._archives[archive].read(member)
