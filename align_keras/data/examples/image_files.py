"""Image files: recognising them by name, walking folders, reading files and archive members."""

import contextlib
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator

from align_keras import paths, uploads
from align_keras.data import file_kinds
from align_keras.errors import MissingInputError
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath, RemoteState

#: Endings of image files, in lower case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp")
#: Endings of unsupported image formats. Such files are counted as faults, not ignored.
FOREIGN_SUFFIXES = (
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".ico", ".psd"),
    *(".tga", ".pbm", ".pgm", ".ppm", ".pnm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"),
)
#: Maximum size of an image file in bytes: a megabyte of an archive can unpack to gigabytes.
MAX_FILE_BYTES = 1 << 28
#: Errors of zip for a damaged, encrypted or unknown member, and of the file system for a file.
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class NoImageError(OSError):
    """There is no image to read; the message says why."""


def no_image(reason: str = "no image") -> Callable[[], bytes]:
    """The ``load`` of an example without an image, which raises NoImageError."""

    def load() -> bytes:
        raise NoImageError(reason)

    return load


def fault_of(error: BaseException) -> str:
    """Why an image could not be read, in a few words."""
    if isinstance(error, NoImageError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "image file missing"
    return "image file unreadable"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or a by-product of the system, by its name."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, including unsupported formats."""
    return name.lower().endswith((*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES))


def foreign_format(name: str) -> str | None:
    """The fault of an image in an unsupported format, by its name; None for a supported one."""
    ending = os.path.splitext(name)[1].lower()
    return f"{ending} is an unsupported format" if ending in FOREIGN_SUFFIXES else None


def walk(folder: str | AnyPath) -> Iterator[str]:
    """Yields the paths of all images below a folder.

    Links are followed. A folder reached twice through links is read once. Hidden files and folders
    are skipped.
    """
    found_in = paths.path_of(folder)
    if isinstance(found_in, RemotePath):
        yield from _walk_remote(found_in)
        return
    seen, waiting = set(), [str(folder)]
    while waiting:
        current = waiting.pop()
        found = os.stat(current)
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        # Sorted, so that the same one of two paths to a folder always counts.
        entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        entries = [entry for entry in entries if not is_hidden(entry.name)]
        waiting.extend(entry.path for entry in reversed(entries) if _is_folder(entry))
        for entry in entries:
            if is_image(entry.name) and not _is_folder(entry):
                yield entry.path


def _walk_remote(folder: RemotePath) -> Iterator[str]:
    for place, names in uploads.walk(folder):
        below = str(place).removeprefix(str(folder)).split("/")
        if not any(map(is_hidden, below)):
            shown = (name for name in names if is_image(name) and not is_hidden(name))
            yield from (str(place / name) for name in shown)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def state(file: str | AnyPath) -> tuple[int, ...]:
    """Size and modification time of a file; empty if it is missing or a link to itself."""
    try:
        found = paths.path_of(file).stat()
    except (OSError, ValueError):
        return ()
    return found.st_size, found.st_mtime_ns


def read_file(path: str | AnyPath) -> bytes:
    """The bytes of a file; OSError if it is not a regular file or exceeds ``MAX_FILE_BYTES``."""
    file = paths.path_of(path)
    try:
        found = file.stat()
    except ValueError:  # characters that no file name can have
        raise FileNotFoundError(f"{str(path)!r} is not a valid file name") from None
    if isinstance(found, RemoteState):
        is_folder, is_file = found.is_folder, not found.is_folder
    else:
        is_folder, is_file = stat.S_ISDIR(found.st_mode), stat.S_ISREG(found.st_mode)
    if is_folder:
        raise NoImageError("image is a folder")
    # A pipe would block forever.
    if not is_file:
        raise OSError("not a file")
    if found.st_size > MAX_FILE_BYTES:
        raise OSError(f"more than {MAX_FILE_BYTES >> 20} MiB")
    return file.read_bytes()


class ImageFolder:
    """Reads image files from a folder, and members of zip archives in that folder.

    Args:
        directory: path of the folder.

    Raises:
        MissingInputError: if the folder does not exist.
    """

    def __init__(self, directory: str | AnyPath) -> None:
        self.directory = paths.path_of(directory)
        if not self.directory.is_dir():
            raise MissingInputError(f"no folder {directory}")
        self._archives: dict[str, zipfile.ZipFile] = {}

    def read(self, image: str, archive: str = "") -> bytes:
        """The bytes of a file, or of a member of ``archive``; raises one of ``UNREADABLE``."""
        if not archive and paths.is_remote(image):
            return read_file(image)
        if not archive and "://" in image:
            raise NoImageError("image is a URL; download it first")
        if not archive:
            return read_file(self.directory / image)
        if archive not in self._archives:
            self._archives[archive] = self._open(archive)
        member = _member(self._archives[archive], image)
        if member is None:
            raise NoImageError("image missing in its archive")
        if member.file_size > MAX_FILE_BYTES:
            raise zipfile.BadZipFile(f"more than {MAX_FILE_BYTES >> 20} MiB")
        return self._archives[archive].read(member)

    def _open(self, archive: str) -> zipfile.ZipFile:
        # Opened once, since opening reads the list of all members.
        try:
            file = self.directory / archive
            return zipfile.ZipFile(file.open("rb") if isinstance(file, RemotePath) else file)
        except (FileNotFoundError, ValueError):
            raise NoImageError("archive missing") from None
        except zipfile.BadZipFile:
            kind = file_kinds.kind_of(file_kinds.head_of(self.directory / archive))
            if kind in (None, file_kinds.ZIP):
                raise
            raise NoImageError(f"archive is {kind.name}, not zip") from None


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    """The member of the given name; None if there is none."""
    # Some programs write UTF-8 names without the flag for it. zipfile then reads code page 437.
    for own in (name, name.encode("utf-8", "replace").decode("cp437")):
        with contextlib.suppress(KeyError):
            return archive.getinfo(own)
    return None
