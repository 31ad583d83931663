"""Families with known faults, which test the harness itself."""

import os
import time

from harness import Family


class Planted(Family):
    """Each case is its number; the cases in ``at_fault`` have a fault."""

    batch, seconds, memory = 8, 4.0, 1_500.0

    def __init__(self, name, at_fault, act):
        self.name, self.at_fault, self.act = name, at_fault, act

    def case(self, seed, number):
        """Returns the number itself."""
        return number

    def run(self, cases):
        for case in cases:
            if case in self.at_fault:
                self.act()
        return ["skipped" if case % 2 else "sound" for case in cases]


def _raise():
    raise RuntimeError("in two\nlines")


def _take_memory():
    kept = [bytearray(b"x") * (100 << 20) for _ in range(30)]
    time.sleep(60)
    del kept


FAMILIES = (
    Planted("raises", (3, 17), _raise),
    Planted("crashes", (5,), os.abort),
    Planted("hangs", (9,), lambda: time.sleep(600)),
    Planted("swells", (2,), _take_memory),
    Planted("sound", (), None),
)
