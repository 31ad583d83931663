"""Random damage to bytes, JSON and text."""

import json
import struct
import sys

#: Numbers at which formats have their limits.
_LIMITS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 0.5, 1e308, float("nan")),
    *(float("inf"), "", " ", "\0", "é", "../../x", "/dev/zero", "a" * 10_000, "\ud800"),
    *([], {}, [[]], {"": {}}, [None] * 100),
)
_PIECES = ("a dog", "<script>", "\x1b[2J", "\r\n", "\0", "\u200d", "\u202e", "e\u0301", "\ufeff")
_PIECES += ("\U0001f600", "\u0130", "ﬃ", "١٢", "[SEP]", "[unused1]", ",", '"', "'", "\\", "\ud800")
_PIECES += ("\udfff", "\u2028", "\x85", "\xa0", "漢字", "ไทย", "%s", "{}", "\ufffe", "\U0010ffff")


def choose(rng, values):
    """Returns one of the given values."""
    return values[int(rng.integers(len(values)))]


# === Bytes ===


def _flip(data, rng):
    for place in rng.integers(len(data), size=rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(8))
    return data


def _overwrite(data, rng):
    start, end = _range(data, rng)
    data[start:end] = rng.integers(0, 256, end - start, "uint8").tobytes()
    return data


def _clear(data, rng):
    start, end = _range(data, rng)
    data[start:end] = bytes(end - start)
    return data


def _cut_off(data, rng):
    return data[: rng.integers(len(data))]


def _take_out(data, rng):
    start, end = _range(data, rng)
    return data[:start] + data[end:]


def _put_in(data, rng):
    place = int(rng.integers(len(data) + 1))
    noise = rng.integers(0, 256, rng.integers(1, 64), "uint8").tobytes()
    return data[:place] + noise + data[place:]


def _repeat(data, rng):
    start, end = _range(data, rng)
    return data[:end] + data[start:end] * int(rng.integers(1, 4)) + data[end:]


def _set_number(data, rng):
    """Writes a limit number into the header, where sizes are, or elsewhere."""
    near = min(len(data), 64) if rng.uniform() < 0.6 else len(data)
    place = int(rng.integers(near))
    number = struct.pack(choose(rng, "<>") + choose(rng, "IHB"), 0)
    limit = choose(rng, _LIMITS).to_bytes(4, choose(rng, ("little", "big")))[: len(number)]
    data[place : place + len(limit)] = limit
    return data


def _swap(data, rng):
    (start, end), (other, last) = sorted((_range(data, rng), _range(data, rng)))
    end = min(end, other)
    return data[:start] + data[other:last] + data[end:other] + data[start:end] + data[last:]


def _append(data, rng):
    return data + rng.integers(0, 256, rng.integers(1, 200), "uint8").tobytes()


_DAMAGES = (_flip, _flip, _overwrite, _clear, _cut_off, _take_out, _put_in, _repeat, _set_number)
_DAMAGES += (_set_number, _swap, _append)


def _range(data, rng):
    length = min(len(data), int(2 ** rng.uniform(0, 10)))
    start = int(rng.integers(len(data) - length + 1))
    return start, start + length


def damaged(data, rng, sound=0.1):
    """Returns bytes with one to three kinds of damage, or unchanged by a chance of ``sound``."""
    data = bytearray(data)
    if rng.uniform() < sound:
        return bytes(data)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        data = choose(rng, _DAMAGES)(data, rng)
    return bytes(data)


# === JSON ===


def damaged_json(text, rng, sound=0.1):
    """Returns the bytes of a JSON text with other values, keys or depth, or with damaged bytes."""
    kind = rng.uniform()
    if kind < sound:
        return text.encode()
    if kind < sound + 0.3:
        return damaged(text.encode(), rng, 0.0)
    value = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        value = _with_odd_part(value, rng)
    if rng.uniform() < 0.02:
        depth = sys.getrecursionlimit() * 100
        return b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    return json.dumps(value).encode()


def _with_odd_part(value, rng):
    """Returns the value with a change at a random place."""
    if not isinstance(value, dict | list) or not value or rng.uniform() < 0.2:
        return choose(rng, _ODD_VALUES)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    value, key = value.copy(), choose(rng, keys)
    action = rng.uniform()
    if action < 0.2:
        del value[key]
    elif action < 0.3 and isinstance(value, dict):
        value[choose(rng, ("", "x", key + "_"))] = value.pop(key)
    else:
        value[key] = _with_odd_part(value[key], rng)
    return value


# === Text ===


def odd_text(rng):
    """Returns unusual text: any Unicode, control characters, surrogates, or megabytes of text."""
    kind = rng.uniform()
    if kind < 0.02:
        return choose(rng, _PIECES) * int(1_000_000 // rng.integers(1, 20))
    if kind < 0.5:
        parts = [choose(rng, _PIECES) for _ in range(int(rng.integers(0, 30)))]
        return choose(rng, ("", " ", "\t")).join(parts)
    last = choose(rng, (0x80, 0x800, 0x3000, 0x10000, 0x110000))
    points = rng.integers(0, last, rng.integers(0, 200))
    return "".join(map(chr, points.tolist()))


def odd_value(rng):
    """Returns any JSON value."""
    return choose(rng, _ODD_VALUES) if rng.uniform() < 0.5 else odd_text(rng)


def rows_of(rng, count):
    """Returns the rows of a table of captions; some values are odd."""
    rows = []
    for number in range(count):
        row = {"image": f"{number % 8}.jpg", "caption": f"a picture of number {number}"}
        if rng.uniform() < 0.3:
            row[choose(rng, list(row))] = odd_value(rng)
        rows.append(row)
    return rows
