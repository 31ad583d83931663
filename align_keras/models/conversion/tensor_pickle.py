"""The description of tensors in PyTorch's files: a pickle, read without calling anything.

``pickle`` calls whatever a file names. This small interpreter knows only the opcodes and the dozen
names that a dictionary of tensors needs, and rejects all others.
"""

import collections
import dataclasses
import io
import pickletools
from collections.abc import Callable, Iterator
from typing import Any

from align_keras.errors import InputError

# NumPy types of the stored numbers; bfloat16 is the upper half of a float32.
_STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """The numbers that tensors share, stored in one member of the archive."""

    key: str
    kind: str
    count: int


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file, as a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Counted in numbers, not bytes."""


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name in the pickle that this module knows."""

    module: str
    name: str


_MARK = object()


def _rebuild_tensor(storage: Storage, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    if not isinstance(storage, Storage):
        raise TypeError
    return TensorEntry(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, TensorEntry):
        raise TypeError
    return tensor


_CALLS: dict[_Global, Callable[..., Any]] = {
    _Global("collections", "OrderedDict"): lambda *pairs: collections.OrderedDict(),
    _Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    _Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    _Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    _Global("torch", "Size"): lambda sizes: tuple(sizes),
}
_KNOWN = {*_CALLS, *(_Global("torch", name) for name in _STORAGES)}


def load(content: bytes, refuse: Callable[[str], InputError]) -> Any:
    """The object that a pickle describes.

    Args:
        content: the pickle.
        refuse: creates the error for something that is not allowed, given a description.

    Raises:
        InputError: from ``refuse``, if the pickle needs anything other than dictionaries of
            tensors.
        Exception: of many kinds, if the bytes are not a pickle.
    """
    return _Machine(refuse).run(content)


class _Machine:
    """Runs the opcodes that build dictionaries of tensors."""

    def __init__(self, refuse: Callable[[str], InputError]) -> None:
        self._refuse = refuse
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """The object that the pickle describes."""
        for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
            if opcode.name == "STOP":
                return self._stack[-1]
            handler = getattr(self, f"_do_{opcode.name.lower()}", None)
            if opcode.name in _PUSHED:
                self._stack.append(_PUSHED[opcode.name](argument))
            elif handler is not None:
                handler(argument)
            else:
                raise self._refuse(f"data.pkl has the opcode {opcode.name}, which is not allowed")
        raise EOFError

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _do_proto(self, _: Any) -> None:
        pass

    _do_frame = _do_proto

    def _do_mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _do_binput(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _do_long_binput = _do_binput

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_binget(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _do_long_binget = _do_binget

    def _do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _last(self, count: int) -> None:
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _do_tuple1(self, _: Any) -> None:
        self._last(1)

    def _do_tuple2(self, _: Any) -> None:
        self._last(2)

    def _do_tuple3(self, _: Any) -> None:
        self._last(3)

    def _do_global(self, name: str) -> None:
        module, _, name = name.partition(" ")
        if _Global(module, name) not in _KNOWN:
            raise self._refuse(f"data.pkl asks for {module}.{name}, which is not allowed")
        self._stack.append(_Global(module, name))

    def _do_stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._do_global(f"{module} {name}")

    def _do_binpersid(self, _: Any) -> None:
        kind, storage, key, _, count = self._stack.pop()
        if kind != "storage" or not isinstance(key, str) or not isinstance(storage, _Global):
            raise TypeError
        self._stack.append(Storage(key, _STORAGES[storage.name], count))

    def _do_reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        # Hashing nested tuples could take forever.
        if not isinstance(function, _Global):
            raise TypeError
        self._stack.append(_CALLS[function](*arguments))

    def _do_build(self, _: Any) -> None:
        # Drops the state, which holds the versions of a dictionary's modules.
        self._stack.pop()

    def _set(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        target = self._stack[-1]
        for key, value in pairs:
            # Hashing a key of another type could take forever.
            if not isinstance(target, dict) or not isinstance(key, str | int):
                raise TypeError
            target[key] = value

    def _do_setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set(iter([(key, value)]))

    def _do_setitems(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._set(zip(values[::2], values[1::2], strict=True))

    def _do_append(self, _: Any) -> None:
        self._stack[-2].append(self._stack.pop())

    def _do_appends(self, _: Any) -> None:
        values = self._pop_to_mark()
        if not isinstance(self._stack[-1], list):
            raise TypeError
        self._stack[-1].extend(values)


# Opcodes that only push a value.
_PUSHED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT"), lambda value: value),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), lambda value: value),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
}
