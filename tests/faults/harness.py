"""The common part of all families of damage: numbered cases, processes that run them, and verdicts.

A case depends only on the seed, its family and its number. Cases run in batches in a separate
process, which reports after each batch. If the process ends, hangs or takes too much memory, the
batch is halved until the case is found. This command runs one case by itself, in its own process:

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
#: Number of cases over all families: ``make test-faults CASES=...``.
CASES = int(os.environ.get("CASES") or 10_000)
#: The possible outcomes of a case.
OUTCOMES = ("sound", "skipped", "refused")
#: After this number of faults, the search stops for a family.
MOST_FAULTS = 5
# Modules with families; each has a tuple FAMILIES.
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
    """Cases of one kind and the code that they test.

    Attributes:
        name: name, such as ``images: PNG``.
        share: share of all cases.
        batch: number of cases that run together.
        seconds: time limit for a batch, in seconds.
        memory: limit for the resident memory of the process, in MiB.
    """

    name = ""
    share = 0.0
    batch = 50
    seconds = 120.0
    memory = 1_500.0

    def prepare(self, folder):
        """Makes the data that all cases need; ``folder`` belongs to this process only."""

    def make_case(self, rng):
        """Returns a case, drawn with a NumPy generator; it is the same in every process."""
        raise NotImplementedError

    def run(self, cases):
        """Tests cases and returns the outcome of each. If it raises an error, that is a fault."""
        raise NotImplementedError

    def case(self, seed, number):
        """Returns the case with this number."""
        return self.make_case(np.random.default_rng([seed, zlib.crc32(self.name.encode()), number]))


def families(modules=MODULES):
    """Returns all families, or those of the given modules, by name."""
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
    """Returns the outcomes and faults of a batch; if the batch raises, runs its halves separately.

    ``tell({})`` reports that the process is alive.
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
    """Describes an error in one line: its message and its place in the package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "align_keras/" in frame.filename] or frames
    place = f"{own[-1].filename.split('align_keras/')[-1]}:{own[-1].lineno}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} at {place}"


# === The driver ===


@dataclasses.dataclass
class Result:
    """The results of a family's cases."""

    cases: int = 0
    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: list = dataclasses.field(default_factory=list)
    """Numbers of the cases at fault, each with a description."""
    seconds: float = 0.0
    peak: float = 0.0
    """Peak resident memory, in MiB."""


class Search:
    """Runs the cases of a family in processes of a ``ForkServer`` and finds those at fault."""

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
            # The process ended within the batch after the last one that it reported.
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
        """Runs cases in a process; returns the number done and, if it failed, how it ended."""
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
            # The limit is for one batch, so it starts again with every line.
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
