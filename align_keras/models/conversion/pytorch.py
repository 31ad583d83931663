"""Reads the tensors of PyTorch's ``.bin`` files without PyTorch, and executes nothing in them.

Such a file is a zip archive: ``data.pkl`` describes the tensors (``tensor_pickle``), and one member
per storage holds the numbers.
"""

import math
import zipfile
from typing import BinaryIO

import numpy as np

from align_keras.errors import InputError, Place
from align_keras.models.conversion import tensor_pickle
from align_keras.models.conversion.tensor_pickle import TensorEntry

# The first pickle in files that PyTorch before version 1.6 wrote.
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# For a model of a thousand tensors it has 200 KB.
_MAX_PICKLE_BYTES = 1 << 26
# Maximum size of a tensor that repeats the numbers of its storage (stride 0).
_MAX_REPEATED = 1 << 24


class PyTorchFile:
    """The tensors of one ``.bin`` file, read one by one.

    Args:
        path: path of a local file.

    Raises:
        InputError: if it is not a PyTorch archive, is damaged, or needs anything other than
            tensors.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            self._check_format(file.read(len(_OLD_FORMAT)))
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {member.filename: member for member in archive.infolist()}
                self._folder = self._find_folder()
                content = archive.read(self._member("data.pkl", _MAX_PICKLE_BYTES))
                if self._has("byteorder"):
                    order = archive.read(self._member("byteorder", 16))
                    if order != b"little":
                        raise self._error(f"byte order {order!r}, only little is supported")
        # Member names that are not UTF-8 raise UnicodeDecodeError.
        except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, UnicodeDecodeError) as error:
            raise self._error(f"not readable as PyTorch's zip format ({error})") from None
        self.tensors = self._read_entries(content)

    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; raises KeyError if it does not exist."""
        return self.tensors[name].shape

    def read(self, name: str) -> np.ndarray:
        """The numbers of a tensor; bfloat16 as float32.

        Raises:
            InputError: if the archive does not hold all of them.
        """
        entry = self.tensors[name]
        kind = entry.storage.kind
        dtype = np.dtype("<u2" if kind == "bfloat16" else kind)
        member = self._member(f"data/{entry.storage.key}")
        if member.file_size < entry.storage.count * dtype.itemsize:
            raise self._error(
                f"{name}: its storage has {member.file_size:,} bytes, not the "
                f"{entry.storage.count * dtype.itemsize:,} that it states"
            )
        extent = _extent(entry)
        with open(self.path, "rb") as file:
            file.seek(self._data_start(file, member) + entry.offset * dtype.itemsize)
            numbers = np.fromfile(file, dtype, extent)
        if len(numbers) < extent:
            raise self._error(f"{name}: the file ends early")
        if kind == "bfloat16":
            numbers = (numbers.astype("<u4") << 16).view("<f4")
        if entry.strides == _dense_strides(entry.shape):
            return numbers.reshape(entry.shape)
        strides = [stride * numbers.itemsize for stride in entry.strides]
        return np.lib.stride_tricks.as_strided(numbers, entry.shape, strides).copy()

    def _read_entries(self, content: bytes) -> dict[str, TensorEntry]:
        try:
            found = tensor_pickle.load(content, self._error)
        except InputError:
            raise
        except Exception as error:  # bytes that are not a pickle raise errors of any kind
            raise self._error(f"data.pkl is damaged ({type(error).__name__})") from None
        if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
            found = found["state_dict"]
        if not isinstance(found, dict):
            raise self._error("it holds no dictionary of tensors")
        entries = {name: value for name, value in found.items() if isinstance(value, TensorEntry)}
        for name, entry in entries.items():
            self._check(name, entry)
        return entries

    def _check(self, name: str, entry: TensorEntry) -> None:
        """Raises InputError if a tensor is not a view of its storage."""
        numbers = (entry.offset, *entry.shape, *entry.strides, entry.storage.count)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise self._error(f"{name}: a negative or fractional size, stride or offset")
        if len(entry.shape) != len(entry.strides):
            raise self._error(f"{name}: {len(entry.shape)} sizes and {len(entry.strides)} strides")
        if entry.offset + _extent(entry) > entry.storage.count:
            raise self._error(f"{name}: it reaches beyond the end of its storage")
        if math.prod(entry.shape) > max(entry.storage.count, _MAX_REPEATED):
            raise self._error(
                f"{name}: the tensor repeats its storage up to {math.prod(entry.shape):,} numbers"
            )

    def _check_format(self, head: bytes) -> None:
        if head.startswith(_OLD_FORMAT):
            raise InputError(
                "written by PyTorch before version 1.6, in an unsupported format",
                Place(self.path),
                "load it with PyTorch and save it again",
            )
        if not head.startswith(b"PK"):
            raise self._error("not a file in PyTorch's zip format")

    def _find_folder(self) -> str:
        """The folder in the archive that holds all members, such as ``archive/``."""
        found = [name for name in self._members if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise self._error(f"{len(found)} files data.pkl instead of one")
        folder = found[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in self._members:
            raise self._error("a TorchScript program, not a dictionary of tensors")
        return folder

    def _has(self, name: str) -> bool:
        return self._folder + name in self._members

    def _member(self, name: str, limit: int | None = None) -> zipfile.ZipInfo:
        """A member; it must be uncompressed: PyTorch never compresses, but a zip bomb does."""
        if not self._has(name):
            raise self._error(f"no {name} in the archive")
        member = self._members[self._folder + name]
        if member.compress_type != zipfile.ZIP_STORED:
            raise self._error(f"{name} is compressed, which PyTorch never does")
        if limit is not None and member.file_size > limit:
            raise self._error(f"{name} has {member.file_size:,} bytes; at most {limit:,} are read")
        return member

    def _data_start(self, file: BinaryIO, member: zipfile.ZipInfo) -> int:
        # Lengths in the local header may differ from those in the archive's directory.
        file.seek(member.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise self._error(f"{member.filename}: no header where the directory has it")
        names, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        return member.header_offset + 30 + names + extra

    def _error(self, problem: str) -> InputError:
        return InputError(problem, Place(self.path), "download it again, or use safetensors")


def _extent(entry: TensorEntry) -> int:
    """Number of values of the storage from the first to the last of a tensor."""
    if 0 in entry.shape:
        return 0
    pairs = zip(entry.shape, entry.strides, strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)


def _dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
