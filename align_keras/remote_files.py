"""TensorFlow's file systems with Python's interface: OSErrors, and files with ``seek``.

Importing this module does not load TensorFlow.
"""

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from align_keras.errors import InputError, Place, UnreachableError


@contextlib.contextmanager
def gfile_of(address: str) -> Iterator[Any]:
    """Yields ``tf.io.gfile``; its errors inside the block become OSErrors that name the address.

    Raises:
        FileNotFoundError: if nothing exists at the address.
        UnreachableError: if the address cannot be reached; this is an OSError too.
        InputError: as in ``check_file_system``.
    """
    check_file_system(address)
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise _os_error(error, address) from error


class RemoteReader(io.RawIOBase):
    """The bytes of a remote file, for ``io.BufferedReader``.

    Args:
        address: address of the file.
        size: size of the file in bytes.
    """

    def __init__(self, address: str, size: int) -> None:
        super().__init__()
        self._address, self._size, self._place = address, size, 0
        with gfile_of(address) as gfile:
            self._file = gfile.GFile(address, "rb")

    def readable(self) -> bool:
        """Returns True: the file can be read."""
        return True

    def seekable(self) -> bool:
        """Returns True: the file can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a byte, possibly after the end; returns its offset."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer; returns the number of bytes, 0 at the end."""
        with gfile_of(self._address):
            if self._file.tell() != self._place:
                self._file.seek(min(self._place, self._size))
            data = self._file.read(len(buffer)) if self._place < self._size else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            self._file.close()
        super().close()


def tensorflow_errors() -> tuple[type[Exception], ...]:
    """TensorFlow's error class, for an ``except``; empty while TensorFlow is not loaded."""
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (tensorflow.errors.OpError,)


def check_file_system(address: str) -> None:
    """Raises an InputError unless TensorFlow or tensorflow-io supports an address's file system."""
    scheme = address.partition("://")[0].lower()
    if scheme in _file_systems() or (_loaded_plug_in() and scheme in _file_systems()):
        return
    raise InputError(
        f"TensorFlow has no file system {scheme}://, only {', '.join(sorted(_file_systems()))}",
        Place(address),
        "correct it, or pip install tensorflow-io, which adds others",
    )


def _file_systems() -> set[str]:
    import tensorflow as tf

    return {name for name in tf.io.gfile.get_registered_schemes() if name}


def _loaded_plug_in() -> bool:
    try:
        importlib.import_module("tensorflow_io")
    except ImportError:
        return False
    return True


def _os_error(error: Any, address: str) -> OSError:
    import tensorflow as tf

    if isinstance(error, tf.errors.NotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address)
    reason = next(iter(str(error.message).splitlines()), "")
    return UnreachableError(reason or type(error).__name__, Place(address))
