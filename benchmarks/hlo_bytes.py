"""Counts the bytes of a chip's memory that each op of a compiled step moves, from its HLO text.

The compiler's own figure, "bytes accessed", includes data in the fast memory of the core and counts
the body of a loop once. This module counts only data in HBM, with the padding of tiles, and counts
the body of a loop once for each iteration. It is pure Python.
"""

import collections
import dataclasses
import math
import re

_WIDTHS = {"pred": 1, "bf16": 2, "f16": 2, "c64": 8, "c128": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([^\s(]+) \(.*\) -> .* \{$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition)=%?([^\s,{}]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SPACE = re.compile(r"S\([1-9]\d*\)")
_TILE = re.compile(r"T\(([\d,]+)\)")
_NAME = re.compile(r'op_name="([^"]*)"')
#: Ops that move no data.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota",
    "partition-id", "replica-id", "opt-barrier", "domain",
}  # fmt: skip
_SLICES = {"slice", "dynamic-slice", "gather"}
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
#: Custom calls that move no data: adjacent parts become one array.
_FREE_CALLS = re.compile(r'custom_call_target="(ConcatBitcast|AllocateBuffer)"')


@dataclasses.dataclass(frozen=True)
class Op:
    """One HLO instruction.

    ``shape`` is its type as written, ``inside`` is the text in the parentheses after its kind,
    ``operands`` are the names in this text, and ``rest`` is the text that follows.
    """

    name: str
    shape: str
    kind: str
    inside: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool

    @property
    def path(self):
        """The layer scopes of the op in TensorFlow, joined by slashes; empty for arguments."""
        found = _NAME.search(self.rest)
        return found[1] if found and not found[1].startswith("XLA_") else ""


@dataclasses.dataclass(frozen=True)
class Access:
    """The bytes that one op moves, with its main operation (``kind``) and its layer (``path``)."""

    op: Op
    kind: str
    path: str
    size: int


def array_bytes(shape):
    """Returns the bytes of HBM that a type needs: all arrays of a tuple, with padded tiles.

    Arrays in another memory space, such as ``S(1)``, count as 0 bytes.
    """
    total = 0
    for dtype, dims, layout in _ARRAY.findall(shape):
        if _SPACE.search(layout):
            continue
        sizes = [int(size.lstrip("<=")) for size in dims.split(",") if size]
        order, _, tiles = layout.partition(":")
        tile = _TILE.search(tiles)
        if order and tile:
            sizes = [sizes[int(axis)] for axis in reversed(order.split(","))]
        tile = [int(size) for size in tile[1].split(",")] if tile else []
        sizes = [1] * (len(tile) - len(sizes)) + sizes
        for place, size in enumerate(reversed(tile), 1):
            sizes[-place] = -(-sizes[-place] // size) * size
        total += math.prod(sizes) * _width(dtype)
    return total


def _width(dtype):
    if dtype in _WIDTHS:
        return _WIDTHS[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return max(1, int(bits[1]) // 8) if bits else 4


def read(text):
    """Parses a module: ``(name of the entry, {name of a computation: {name: Op}})``."""
    computations, entry, ops = {}, None, None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            ops = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif ops is not None and " = " in line:
            op = _read_op(line)
            ops[op.name] = op
    return entry, computations


def _read_op(line):
    name, _, rest = line.strip().partition(" = ")
    is_root = name.startswith("ROOT ")
    shape, rest = _split_type(rest)
    kind, _, rest = rest.partition("(")
    inside = _until_closed(rest)
    operands = tuple(re.findall(r"%([^\s,()]+)", inside))
    name = name.removeprefix("ROOT ").removeprefix("%")
    return Op(name, shape, kind, inside, operands, rest[len(inside) :], is_root)


def _split_type(text):
    end = len(_until_closed(text[1:])) + 2 if text.startswith("(") else text.index(" ")
    return text[:end], text[end:].lstrip()


def _until_closed(text):
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[:place]
    return text


def accesses(text):
    """Yields an ``Access`` for each op that moves data in HBM; a loop counts every iteration."""
    entry, computations = read(text)
    yield from _of_computation(entry, computations, 1)


def _of_computation(name, computations, times):
    ops = computations[name]
    users = _users(ops)
    for op in ops.values():
        called = dict(_CALLED.findall(op.rest))
        if op.kind == "while":
            rounds = times * _rounds(op, computations[called["condition"]])
            yield from _of_computation(called["body"], computations, rounds)
        elif op.kind == "conditional":
            # The branch that moves the most bytes counts.
            branches = re.findall(r"%([^\s,]+)", _BRANCHES.search(op.rest)[1])
            found = [list(_of_computation(one, computations, times)) for one in branches]
            yield from max(found, key=total)
        elif op.kind == "call":
            yield from _of_computation(called["to_apply"], computations, times)
        elif op.kind not in _FREE and not op.kind.endswith("-done"):
            inner = computations.get(called.get("calls"), {})
            size = op_bytes(op, ops, inner)
            if size:
                path = op.path or _path_beside(op, ops, users)
                yield Access(op, what_it_is(op, inner), path, times * size)


def _rounds(loop, condition):
    """Returns the number of iterations of a loop; 1 if the HLO does not contain it.

    Loops of TensorFlow count from 0 up to a constant, which is excluded.
    """
    if trips := _TRIPS.search(loop.rest):
        return int(trips[1])
    root = next(op for op in condition.values() if op.is_root)
    bounds = [condition[name] for name in root.operands if name in condition]
    numbers = [int(op.inside) for op in bounds if op.kind == "constant" and op.inside.isdigit()]
    return numbers[0] if "direction=LT" in root.rest and numbers else 1


def _users(ops):
    """Returns, for each op by name, the ops of a computation that read it, in program order."""
    users = collections.defaultdict(list)
    for op in ops.values():
        for name in op.operands:
            users[name].append(op)
    return users


def _path_beside(op, ops, users):
    """Returns the path of the op that a nameless copy to or from fast memory serves."""
    paths = [ops[name].path for name in op.operands if name in ops]
    readers = [op]
    while readers and not any(paths):
        readers = [user for reader in readers for user in users[reader.name]]
        paths = [reader.path for reader in readers]
    return next((path for path in paths if path), "")


def total(found):
    """Returns the bytes of all given accesses."""
    return sum(access.size for access in found)


def op_bytes(op, ops, inner):
    """Returns the bytes of HBM that one op reads and writes.

    Args:
        op: an op of the computation ``ops``.
        ops: all ops of the computation by name, which include the operands of ``op``.
        inner: for a fusion, the ops that are fused; otherwise empty.
    """
    operands = [ops[name] for name in op.operands if name in ops]
    if op.kind == "custom-call" and _FREE_CALLS.search(op.rest):
        return 0
    if op.kind in ("slice-start", "async-start") and operands:
        # The op copies a part of its operand to another memory. The second array of its type is
        # this part.
        arrays = [found[0] for found in _ARRAY.finditer(op.shape)]
        copied = _unspaced_bytes(arrays[1])
        return min(copied, array_bytes(operands[0].shape)) + array_bytes(arrays[1])
    if op.kind.endswith("-start"):
        # The type of the op contains the operands and the results.
        read_bytes = sum(array_bytes(operand.shape) for operand in operands)
        return max(read_bytes, array_bytes(op.shape))
    if op.kind in _SLICES:
        return 2 * array_bytes(op.shape)
    if op.kind in _UPDATES:
        return 2 * array_bytes(operands[_UPDATES[op.kind]].shape)
    if not inner:
        return array_bytes(op.shape) + sum(array_bytes(operand.shape) for operand in operands)
    parameters = {int(one.inside): one for one in inner.values() if one.kind == "parameter"}
    size, updated = _written_by(op, inner)
    for place, operand in enumerate(operands):
        size += _read_by(parameters.get(place), operand, inner, updated)
    return size


def _written_by(op, inner):
    """Returns the bytes that a fusion writes, and the parameters that it updates in place."""
    root = next((one for one in inner.values() if one.is_root), None)
    while root and root.kind == "bitcast":
        root = inner[root.operands[0]]
    if root and root.kind in _UPDATES:
        target = inner[root.operands[0]]
        update = inner[root.operands[_UPDATES[root.kind]]]
        return _unspaced_bytes(update.shape), {target.name}
    return array_bytes(op.shape), set()


def _read_by(parameter, operand, inner, updated):
    """Returns the bytes that a fusion reads of one operand: all of it, or only its slices."""
    whole = array_bytes(operand.shape)
    if parameter is None:
        return whole
    if parameter.name in updated:
        return 0
    users = [one for one in inner.values() if parameter.name in one.operands]
    if users and all(one.kind in _SLICES and one.operands[0] == parameter.name for one in users):
        return min(whole, sum(_unspaced_bytes(one.shape) for one in users))
    return whole


def _unspaced_bytes(shape):
    """Like ``array_bytes``, but ignores memory spaces, which have no meaning inside a fusion."""
    return array_bytes(_SPACE.sub("", shape))


def what_it_is(op, inner):
    """Returns the kind of an op; for a fusion, the kind of its most expensive op."""
    kinds = {one.kind for one in inner.values()} | {op.kind.removesuffix("-start")}
    if op.kind == "custom-call":
        return "custom call"
    if op.kind in ("copy-start", "slice-start", "async-start"):
        return "to or from fast memory"
    for name in ("convolution", "dot", "scatter", "gather", "all-reduce", "reduce-window", "sort"):
        if name in kinds:
            return name
    if "reduce" in kinds:
        return "reduce"
    moves = {"copy", "transpose", "reshape", "slice", "pad", "concatenate", "dynamic-slice"}
    computes = kinds - moves - _FREE - {"fusion", "broadcast", "dynamic-update-slice"}
    return "elementwise" if computes else "copy, transpose, slice"


def of_any_memory(text):
    """Returns the text without memory spaces, so that data in fast memory count as HBM."""
    return _SPACE.sub("", text)


def without_padding(text):
    """Returns the text without tiles, so that arrays need only the bytes of their elements."""
    return _TILE.sub("", text)


def argument_bytes(text):
    """Returns the bytes of HBM of the arguments: weights, state of the optimizer, and batch."""
    entry, computations = read(text)
    ops = computations[entry].values()
    return sum(array_bytes(op.shape) for op in ops if op.kind == "parameter")


def largest_array(shape):
    """Returns the largest array of a type, without its layout."""
    found = _ARRAY.finditer(_SPACE.sub("", shape))
    return max(found, key=lambda one: array_bytes(one[0]))[0].partition("{")[0]
