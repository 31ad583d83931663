"""The tensors of a checkpoint by name, from safetensors or PyTorch files."""

import os
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import safetensors

from align_keras import hub
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.models.conversion.pytorch import PyTorchFile

# A single file, and the index of several files. The first that exists is read.
_LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


class _File(Protocol):
    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str) -> np.ndarray: ...


class SafetensorsFile:
    """The tensors of one ``.safetensors`` file, read one by one.

    Args:
        path: path of a local file.

    Raises:
        InputError: if it is not a readable safetensors file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with safetensors.safe_open(path, "np") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self._shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        except safetensors.SafetensorError as error:
            raise InputError(
                f"not readable as safetensors ({error})", Place(path), "download it again"
            ) from None

    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._shapes[name]

    def read(self, name: str) -> np.ndarray:
        """The numbers of a tensor; bfloat16 as float32."""
        # The file is opened for each tensor, because tensors of a mapped file stay in memory until
        # the file is closed.
        with safetensors.safe_open(self.path, "np") as file:
            tensor = file.get_tensor(name)
        return tensor.astype("float32") if tensor.dtype == ml_dtypes.bfloat16 else tensor


class TensorFiles:
    """The tensors of a checkpoint, from ``model.safetensors`` or else from ``pytorch_model.bin``.

    Each of these is one file, or several files with an index.

    Args:
        preset: a folder or the address of a preset on a hub, from which it is downloaded.

    Raises:
        InputError: if a file is damaged, or the index names a file outside the checkpoint.
        MissingInputError: if neither exists.
    """

    def __init__(self, preset: str) -> None:
        for single, index in _LAYOUTS:
            if hub.has_file(preset, index):
                self._file_of = _by_index(preset, index)
                self.name = index
                return
            if hub.has_file(preset, single):
                file = _open(preset, single)
                self._file_of = dict.fromkeys(file.names(), file)
                self.name = single
                return
        raise MissingInputError(
            f"neither {' nor '.join(single for single, _ in _LAYOUTS)} in the checkpoint",
            remedy="give a checkpoint with its weights",
        )

    def __contains__(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name."""
        return name in self._file_of

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; raises InputError if it does not exist."""
        return self._find(name).shape(name)

    def read(self, name: str) -> np.ndarray:
        """The numbers of a tensor; raises InputError if it does not exist."""
        return self._find(name).read(name)

    def _find(self, name: str) -> _File:
        if name not in self._file_of:
            raise InputError(f"no tensor {name} in the checkpoint", Place(member=self.name))
        return self._file_of[name]


def _open(preset: str, name: str) -> Any:
    path = hub.file_of(preset, name)
    return SafetensorsFile(path) if name.endswith(".safetensors") else PyTorchFile(path)


def _by_index(preset: str, index: str) -> dict[str, _File]:
    content = hub.read_json(preset, index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise InputError("no weight_map of file names in the index", Place(member=index))
    for name in names.values():
        # An index may come from others: it must not name other files on this machine.
        if os.path.basename(name) != name or not name.endswith((".safetensors", ".bin")):
            raise InputError(
                f"it names {name}, which is not a file in its folder", Place(member=index)
            )
    files = {name: _open(preset, name) for name in set(names.values())}
    for tensor, name in names.items():
        if tensor not in files[name].names():
            raise InputError(f"no tensor {tensor} in {name}", Place(member=index))
    return {tensor: files[name] for tensor, name in names.items()}
