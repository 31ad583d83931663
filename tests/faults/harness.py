"""What the families of damage have in common: cases by number, processes that run them, a verdict.

A case follows from the seed, its family and its number alone. Cases run in batches in a process of
their own, which reports after each batch. Where it ends, hangs or takes too much memory, the batch
is halved until the case is found. One case by itself, in this process:

    PYTHONPATH=.:recipes:tests:tests/faults python -m harness FAMILY SEED NUMBER
"""

import collections
import dataclasses
import importlib
import json
import os
import re
import signal
import sys
import time
import traceback
import zlib
from pathlib import Path

import numpy as np

SEED = int(os.environ.get("SEED") or 0)
#: ``make test-faults CASES=...``: over all families.
CASES = int(os.environ.get("CASES") or 10_000)
#: What may come of a case.
OUTCOMES = ("sound", "skipped", "refused")
#: After so many faults a family is not searched further.
MOST_FAULTS = 5
# Modules with families, each with a tuple FAMILIES.
MODULES = (
    "record_families",
    "image_families",
    "caption_families",
    "table_families",
    "index_families",
    "weight_families",
    "run_families",
)


class Family:
    """Cases of one kind, and what they are put through.

    Attributes:
        name: such as ``images: PNG``.
        share: of all cases.
        batch: cases that run together.
        seconds: that a batch may take.
        memory: MiB that the process may have resident.
    """

    name = ""
    share = 0.0
    batch = 50
    seconds = 120.0
    memory = 1_500.0

    def prepare(self, folder):
        """Makes what all cases need; ``folder`` is this process's own."""

    def make_case(self, rng):
        """A case, from a NumPy generator; the same in every process."""
        raise NotImplementedError

    def run(self, cases):
        """Puts cases through; the outcome of each. An error that it raises is a fault."""
        raise NotImplementedError

    def case(self, seed, number):
        """The case of a number."""
        return self.make_case(np.random.default_rng([seed, zlib.crc32(self.name.encode()), number]))


def families(modules=MODULES):
    """All families by name, or those of some modules."""
    found = [family for name in modules for family in importlib.import_module(name).FAMILIES]
    return {family.name: family for family in found}


# === In a process of its own ===


def run_cases(module, name, seed, first, stop, batch, folder, report):
    """Runs cases ``first`` to ``stop`` and writes a line of JSON after each batch."""
    family, folder = families([module])[name], Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    family.prepare(folder)
    with open(report, "a") as file:

        def tell(line):
            file.write(json.dumps(line) + "\n")
            file.flush()

        for start in range(first, stop, batch):
            end = min(start + batch, stop)
            line = {"stop": end} | run_batch(family, seed, start, end, tell)
            tell(line)
            if len(line["faults"]) >= MOST_FAULTS:
                return


def run_batch(family, seed, start, end, tell):
    """Outcomes and faults of a batch; where it raises, of its cases one by one.

    ``tell({})`` says that the process is alive.
    """
    tell({})
    cases = [family.case(seed, number) for number in range(start, end)]
    try:
        outcomes = family.run(cases)
        assert len(outcomes) == len(cases), "an outcome for each case"
        return {"outcomes": collections.Counter(outcomes), "faults": []}
    except Exception as error:
        if end - start == 1:
            return {"outcomes": {}, "faults": [[start, describe(error)]]}
    middle = (start + end) // 2
    first = run_batch(family, seed, start, middle, tell)
    if len(first["faults"]) >= MOST_FAULTS:
        return first
    second = run_batch(family, seed, middle, end, tell)
    outcomes = collections.Counter(first["outcomes"]) + collections.Counter(second["outcomes"])
    return {"outcomes": outcomes, "faults": first["faults"] + second["faults"]}


def describe(error):
    """An error in a line: what it says, and where in the package it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "align_keras/" in frame.filename] or frames
    place = f"{own[-1].filename.split('align_keras/')[-1]}:{own[-1].lineno}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} at {place}"


# === The driver ===


@dataclasses.dataclass
class Result:
    """What came of a family's cases."""

    cases: int = 0
    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: list = dataclasses.field(default_factory=list)
    """Numbers of cases with what happened."""
    seconds: float = 0.0
    peak: float = 0.0
    """MiB resident at most."""


class Search:
    """Runs the cases of a family in processes of a ``ForkServer``; finds those at fault."""

    def __init__(self, server, family, folder, seed=SEED):
        self.server, self.family, self.folder, self.seed = server, family, Path(folder), seed
        self.result = Result()
        self._processes = 0

    def run(self, count):
        """Runs cases 0 to ``count``; returns a ``Result``."""
        began = time.monotonic()
        self._run(0, count, self.family.batch)
        self.result.seconds = time.monotonic() - began
        return self.result

    def _run(self, first, stop, batch):
        while first < stop and len(self.result.faults) < MOST_FAULTS:
            done, ending = self._process(first, stop, batch)
            if not ending:
                return
            # It ended within the batch after the last that it reported.
            end = min(done + batch, stop)
            if end - done == 1:
                self.result.faults.append([done, ending])
                self.result.cases += 1
            else:
                middle = (done + end) // 2
                for part in ((done, middle), (middle, end)):
                    self._run(*part, part[1] - part[0])
            first = end

    def _process(self, first, stop, batch):
        """Runs cases in a process; how many are done, and how it ended if not well."""
        self._processes += 1
        name = re.sub(r"\W+", "-", f"{self.family.name} {self._processes}")
        work = self.folder / name
        report, output = (work.with_name(name + end) for end in (".jsonl", ".txt"))
        process = self.server.start(
            "harness:run_cases",
            *(type(self.family).__module__, self.family.name, self.seed),
            *(first, stop, batch, str(work), str(report)),
            output=output,
        )
        family, done, lines = self.family, first, 0
        until = time.monotonic() + 4 * family.seconds
        while not process.poll():
            # The limit is for a batch: it starts from the beginning with every line.
            if report.exists() and (now := report.read_bytes().count(b"\n")) > lines:
                lines, until = now, time.monotonic() + family.seconds
            process.wait_a_moment(until, family.memory)
        if report.exists():
            for line in filter(None, map(json.loads, report.read_text().splitlines())):
                self.result.cases += line["stop"] - done
                self.result.outcomes.update(line["outcomes"])
                self.result.faults += line["faults"]
                done = line["stop"]
        self.result.peak = max(self.result.peak, process.peak)
        if process.ended_by:
            return done, process.ended_by
        if process.status < 0:
            return done, signal.Signals(-process.status).name
        if process.status:
            raise RuntimeError(output.read_text(errors="replace")[-2000:])
        return done, ""


def main(name, seed, number):
    """Runs one case in this process."""
    import tempfile

    family = families()[name]
    with tempfile.TemporaryDirectory() as folder:
        family.prepare(Path(folder))
        case = family.case(int(seed), int(number))
        print(repr(case)[:2000])
        print(*family.run([case]))


if __name__ == "__main__":
    main(*sys.argv[1:])
