"""Records that are no ``tf.train.Example``, under checksums that are right."""

import numpy as np


def crashing(record):
    """A record with a photograph, such that TensorFlow's parser reads past its end: SIGSEGV."""
    damaged = bytearray(record)
    # The length of the photograph goes on into its first bytes.
    damaged[damaged.index(b"\xff\xd8\xff\xe0") - 1] |= 0x80
    return bytes(damaged)


def mutated(record, rng):
    """A record with one to four bytes changed, or a part cut out, doubled or put elsewhere."""
    damaged = bytearray(record)
    kind = rng.integers(6)
    # Most of a record is its photograph; the structure is near the beginning and the end.
    near = min(len(damaged), 200)
    places = np.concatenate([np.arange(near), np.arange(len(damaged) - near, len(damaged))])
    place = int(rng.choice(places))
    length = int(rng.integers(1, 40))
    if kind < 3:
        for own in rng.choice(places, rng.integers(1, 5)):
            damaged[own] = rng.choice([0, 0xFF, damaged[own] ^ 1 << rng.integers(8)])
    elif kind == 3:
        del damaged[place : place + length]
    elif kind == 4:
        damaged[place:place] = damaged[place : place + length]
    else:
        damaged = damaged[: int(rng.integers(len(damaged)))]
    return bytes(damaged)
