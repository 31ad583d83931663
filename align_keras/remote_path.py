"""Files and folders on TensorFlow's remote file systems: ``gs://BUCKET/FILE`` and plug-ins.

Importing this module does not load TensorFlow; the first access to a file does.
"""

import contextlib
import errno
import io
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from align_keras.remote_files import RemoteReader, gfile_of


class RemoteState(NamedTuple):
    """The result of ``RemotePath.stat``, with the names of ``os.stat_result``."""

    st_size: int
    st_mtime_ns: int
    is_folder: bool


class RemotePath:
    """A path such as ``gs://BUCKET/FILE``, with the methods of ``pathlib.Path`` that are needed.

    It is not an ``os.PathLike``, since pathlib, ``os`` and ``open`` would turn it into a local
    folder ``gs:``. TensorFlow's errors become OSErrors. The similar etils.epath supports only four
    schemes.

    Args:
        address: ``SCHEME://...``.
    """

    __slots__ = ("_address",)

    def __init__(self, address: str) -> None:
        scheme, _, rest = address.partition("://")
        parts = [part for part in rest.split("/") if part not in ("", ".")]
        self._address = f"{scheme.lower()}://{'/'.join(parts)}"

    def __str__(self) -> str:
        return self._address

    def __repr__(self) -> str:
        return f"RemotePath({self._address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self._address == str(other)

    def __lt__(self, other: "RemotePath") -> bool:
        return self._address < str(other)

    def __hash__(self) -> int:
        return hash(self._address)

    # === Names ===

    def __truediv__(self, name: object) -> "RemotePath":
        return RemotePath(f"{self._address}/{name}")

    @property
    def scheme(self) -> str:
        """The scheme: the part before ``://``."""
        return self._address.partition("://")[0]

    @property
    def _parts(self) -> list[str]:
        return self._address.partition("://")[2].split("/")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._parts[-1]

    @property
    def suffix(self) -> str:
        """The suffix of the name, with the dot; empty if there is none."""
        stem, dot, last = self.name.rpartition(".")
        return dot + last if stem and last else ""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.removesuffix(self.suffix)

    @property
    def parent(self) -> "RemotePath":
        """The parent folder; for a bucket, the bucket itself."""
        parts = self._parts
        return RemotePath(f"{self.scheme}://{'/'.join(parts[:-1])}") if len(parts) > 1 else self

    @property
    def parents(self) -> list["RemotePath"]:
        """The folders above, nearest first, up to the bucket."""
        found, path = [], self
        while path.parent != path:
            path = path.parent
            found.append(path)
        return found

    def with_name(self, name: str) -> "RemotePath":
        """Another file in the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> "RemotePath":
        """The same name with another suffix."""
        return self.with_name(self.stem + suffix)

    def resolve(self) -> "RemotePath":
        """The path itself, since there are no links."""
        return self

    # === What is there ===

    def stat(self) -> RemoteState:
        """Size and modification time."""
        with self._as_os_errors() as gfile:
            found = gfile.stat(self._address)
            return RemoteState(found.length, found.mtime_nsec, found.is_directory)

    def exists(self) -> bool:
        """Whether a file or folder exists; an empty bucket counts as a folder."""
        with self._as_os_errors() as gfile:
            return gfile.exists(self._address)

    def is_dir(self) -> bool:
        """Whether the address is a folder.

        On an object store, a folder exists if names of objects begin with the address and ``/``.
        """
        with self._as_os_errors() as gfile:
            return gfile.isdir(self._address)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.exists() and not self.is_dir()

    def is_symlink(self) -> bool:
        """Returns False, since there are no links."""
        return False

    def iterdir(self) -> Iterator["RemotePath"]:
        """The entries of the folder."""
        with self._as_os_errors() as gfile:
            # Google's object store appends a slash to the names of folders.
            names = {name.strip("/") for name in gfile.listdir(self._address)}
        return (self / name for name in sorted(names - {""}))

    # === Reading and writing ===

    def open(
        self, mode: str = "r", encoding: str | None = None, newline: str | None = None
    ) -> IO[Any]:
        """Opens the file for reading, like ``open``: buffered and with ``seek``."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"mode {mode!r}: remote files can only be written as a whole")
        with self._as_os_errors() as gfile:
            size = gfile.stat(self._address).length
            raw = io.BufferedReader(RemoteReader(self._address, size), 1 << 20)
        return raw if mode == "rb" else io.TextIOWrapper(raw, encoding or "utf-8", newline=newline)

    def read_bytes(self) -> bytes:
        """The file's bytes."""
        with self._as_os_errors() as gfile, gfile.GFile(self._address, "rb") as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """The file's text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> None:
        """Writes the file, as one object."""
        with self._as_os_errors() as gfile:
            self._make_way(gfile)
            with gfile.GFile(self._address, "wb") as file:
                file.write(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Writes the file, as one object."""
        self.write_bytes(text.encode(encoding))

    def touch(self) -> None:
        """Writes an empty file, unless the file exists."""
        if not self.exists():
            self.write_bytes(b"")

    def copy_from(self, source: "str | RemotePath") -> None:
        """Writes the file with the bytes of another file, local or remote."""
        with self._as_os_errors() as gfile:
            self._make_way(gfile)
            gfile.copy(str(source), self._address, overwrite=True)

    def _make_way(self, gfile: Any) -> None:
        # TensorFlow's in-memory file system would append to an existing file.
        if self.scheme == "ram" and gfile.exists(self._address):
            gfile.remove(self._address)

    def copy_to(self, target: str) -> None:
        """Copies the file to a local path."""
        with self._as_os_errors() as gfile:
            gfile.copy(self._address, target, overwrite=True)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Creates the folder and its parents; an object store needs none of them."""
        with self._as_os_errors() as gfile:
            if not exist_ok and gfile.exists(self._address):
                raise FileExistsError(errno.EEXIST, "already exists", self._address)
            gfile.makedirs(self._address)

    def replace(self, target: "RemotePath") -> None:
        """Moves the file. An object store copies and deletes, so a kill in between leaves both."""
        with self._as_os_errors() as gfile:
            gfile.rename(self._address, str(target), overwrite=True)

    rename = replace

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file."""
        with (
            contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext(),
            self._as_os_errors() as gfile,
        ):
            gfile.remove(self._address)

    def rmdir(self) -> None:
        """Removes the folder, which must be empty."""
        if next(self.iterdir(), None) is not None:
            raise OSError(errno.ENOTEMPTY, "it is not empty", self._address)
        with self._as_os_errors() as gfile:
            gfile.rmtree(self._address)

    def _as_os_errors(self) -> contextlib.AbstractContextManager[Any]:
        return gfile_of(self._address)
