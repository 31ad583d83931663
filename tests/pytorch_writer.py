"""Writes files as PyTorch does, and hostile files, without PyTorch."""

import collections
import io
import pickle
import types
import zipfile

import numpy as np

DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class Stored:
    """Represents a storage of PyTorch in a pickle."""

    def __init__(self, kind, key, count):
        self.reference = ("storage", kind, key, "cpu", count)


class Call:
    """Is pickled as a call of ``function``, which may be any function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def torch_modules():
    """Returns modules with the names that PyTorch's pickles use, so that the pickler finds them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in (*DTYPES, "BFloat16Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    torch._utils = utils
    return {"torch": torch, "torch._utils": utils}


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return getattr(value, "reference", None)


def pickled(content, protocol=2):
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def write(path, content, storages=None, folder="archive", compression=zipfile.ZIP_STORED, **others):
    """Writes a file in PyTorch's format; ``content`` is pickled unless it is already bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        data = content if isinstance(content, bytes) else pickled(content)
        archive.writestr(f"{folder}/data.pkl", data)
        for key, numbers in (storages or {}).items():
            archive.writestr(f"{folder}/data/{key}", np.asarray(numbers).tobytes())
        for name, data in others.items():
            archive.writestr(f"{folder}/{name}", data)
    return str(path)


def tensor(torch, kind, count, shape, strides, offset=0, key="0"):
    stored = Stored(getattr(torch, kind), key, count)
    hooks = collections.OrderedDict()
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, stored, offset, shape, strides, False, hooks)
