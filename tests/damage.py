"""Damages the files of a folder by a seed, in ways in which disks and people do."""

import random
import shutil


def _flip(data, rng):
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _truncate(data, rng):
    return data[: rng.randrange(len(data))]


def _extend(data, rng):
    return data + rng.randbytes(rng.randrange(1, 9))


def _zero(data, rng):
    place = rng.randrange(len(data))
    return data[:place] + bytes(len(data[place : place + 64])) + data[place + 64 :]


CHANGES = {"flip": _flip, "truncate": _truncate, "extend": _extend, "zero": _zero}
KINDS = (*CHANGES, "delete", "swap")


def damage(folder, seed):
    """Damages one file of a folder or swaps two files; returns a description of the damage."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kind = KINDS[seed % len(KINDS)]
    path, other = rng.sample(files, 2)
    if kind == "delete":
        path.unlink()
    elif kind == "swap":
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
        return f"swap {path.name} and {other.name}"
    elif path.stat().st_size:
        path.write_bytes(CHANGES[kind](path.read_bytes(), rng))
    return f"{kind} {path.name}"


def damaged_copy(folder, target, seed):
    """Returns a damaged copy of a folder and a description of the damage."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target, damage(target, seed)
