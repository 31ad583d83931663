"""Records with correct checksums that are not valid ``tf.train.Example`` messages."""

import numpy as np


def crashing(record):
    """Returns a record that makes TensorFlow's parser read past its end and crash (SIGSEGV)."""
    damaged = bytearray(record)
    # The encoded length of the photograph then includes the first bytes of the photograph.
    damaged[damaged.index(b"\xff\xd8\xff\xe0") - 1] |= 0x80
    return bytes(damaged)


def mutated(record, rng):
    """Returns a record with one to four changed bytes, or with a part removed or doubled."""
    damaged = bytearray(record)
    kind = rng.integers(6)
    # Most of a record is the photograph; the structure is near the beginning and the end.
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
