"""The whole training step through the TPU compiler, without a TPU: does it fit, how fast can it be?

    python benchmarks/tpu_compile.py --experiments quickstart --chips v5e --variants plain
    python benchmarks/tpu_compile.py --only-table

Forward and backward pass, loss and optimizer of a named experiment of ``recipes/experiments.py``,
in bfloat16 with its share of the paper's batch: 16,384 pairs over 1,024 cores. libtpu compiles it
for each kind of chip; nothing is executed. A compilation takes minutes to hours, so each result is
a JSON file in ``--results``, and the table is printed of all that are there: a run adds to them,
and one that was stopped continues. Needs the extra ``tpu-compile``.

The compiler has chosen every op's form, order and place in memory when it begins to generate code.
All figures stand then, so it is ended there, unless ``--code`` asks whether code can be generated
too: two thirds of the time of a small step, nine tenths of that of a large one.

"args" are weights, optimizer and batch; "temps" what else takes HBM during the step. "MB" is all
that the ops read and write, of which much stays in the core's own memory; "HBM MB" is the rest,
counted by ``hlo_bytes.py``. The roofline is theirs: the step's time at the chip's peaks of
arithmetic and of bandwidth, and the pairs per second of one chip at the larger of the two. Real
steps are slower. The compiler counts the GFLOP of a loop once: of micro-batches those of one.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # this process needs no TensorFlow

import measure
import tpu_figures

from align_keras.files import write_whole

_FOLDER = Path(__file__).parent
EXPERIMENTS = (
    "quickstart", "products_nano", "cc3m_b3_mini", "align_b5_base", "align_b7_base",
    "align_l2_large",
)  # fmt: skip
_RESULTS = _FOLDER.parent / "runs" / "tpu_compile"


def main(arguments):
    """Compiles the cases without a result, then prints the table."""
    arguments.results.mkdir(parents=True, exist_ok=True)
    if not arguments.only_table:
        compile_missing(arguments)
    results = [json.loads(path.read_text()) for path in sorted(arguments.results.glob("*.json"))]
    if not results:
        sys.exit(f"no results in {arguments.results}")
    for machine in sorted({(one["machine"], one["date"], one["libtpu"]) for one in results}):
        print("compiled on {}, {}, by libtpu {}".format(*machine))
    print("\n" + "\n".join(tpu_figures.table(results)))


def compile_missing(arguments):
    """Compiles every case without a result, one after another."""
    versions = installed_versions()
    for case in cases(arguments, versions):
        path = arguments.results / f"{tpu_figures.key(case)}.json"
        if is_done(path, arguments.code) and not arguments.again:
            continue
        print(f"compiling {path.stem}", flush=True)
        result = compile_case(case, path, arguments.code, arguments.limit)
        if result:
            write_whole(path, json.dumps({**case, **result}, indent=2) + "\n")


def is_done(path, code):
    """Whether there is a result, with code if that is wanted; an error is one."""
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    return "error" in result or not code or result["memory"]["code"] is not None


def installed_versions():
    """The versions that the figures depend on; exits if the compiler is missing."""
    names = ("libtpu", "jax", "tensorflow", "keras")
    try:
        return {name: importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError as error:
        sys.exit(
            f"tpu_compile.py: {error.name} is not installed: pip install -e '.[tpu-compile]', or "
            "make tpu-compile"
        )


def cases(arguments, versions):
    """The cases to compile, as dicts, the smallest models first."""
    shared = {"pairs": arguments.pairs, "replicas": arguments.replicas, "effort": arguments.effort}
    for experiment in arguments.experiments:
        for variant in arguments.variants:
            for chip in arguments.chips:
                case = {"experiment": experiment, "variant": variant, "chip": chip}
                yield {**case, **shared, **versions}


def compile_case(case, path, code, limit):
    """A case's result, a dict; None if it took longer than ``limit`` seconds."""
    topology = tpu_figures.smallest_slice(case["chip"], case["replicas"])
    if topology is None:
        sys.exit(f"no slice of {case['chip']} has {case['replicas']} chips: lower --replicas")
    steps = path.parent / "steps"
    steps.mkdir(exist_ok=True)
    hlo = steps / f"{tpu_figures.step_key(case)}.hlo"
    facts = hlo.with_suffix(".json")
    if not facts.exists():
        variant = tpu_figures.settings(case["variant"], case["pairs"])
        # The default on TPUs; the step is traced on a CPU.
        cuts = case["variant"] != "whole"
        settings = {"precision": "mixed_bfloat16", "space_to_batch": cuts, **variant}
        step = {name: case[name] for name in ("experiment", "pairs", "replicas")}
        found = in_child("tpu_step.py", None, path=str(hlo), settings=settings, **step)
        write_whole(facts, json.dumps(found) + "\n")
    text = path.with_suffix(".hlo.gz")
    compilation = {name: case[name] for name in ("replicas", "effort")}
    compilation |= {"path": str(hlo), "topology": topology, "code": code, "text": str(text)}
    with tempfile.TemporaryDirectory() as folder:
        result = in_child("tpu_executable.py", limit, folder=folder, **compilation)
    if result is None:
        print(f"not done within {limit} s", flush=True)
        return None
    known = {
        "machine": measure.machine(),
        "date": datetime.date.today().isoformat(),
        "topology": topology,
    }
    return {**json.loads(facts.read_text()), **known, **result}


def in_child(script, limit, **case):
    """Runs a case in a process of its own; returns its output, or None after ``limit`` seconds."""
    command = [sys.executable, str(_FOLDER / script), "--case", json.dumps(case)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    if child.returncode:
        lines = child.stderr.strip().splitlines() or [f"ended with {child.returncode}"]
        sys.exit(f"{script}, case {case}: {lines[-1]}")
    return json.loads(child.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    variants, chips = tpu_figures.VARIANTS, list(tpu_figures.CHIPS)
    parser.add_argument("--variants", nargs="+", choices=variants, default=variants)
    parser.add_argument("--chips", nargs="+", choices=chips, default=chips)
    parser.add_argument("--pairs", type=int, default=16, help="of a chip")
    parser.add_argument("--replicas", type=int, default=1, help="chips, with their collectives")
    parser.add_argument(
        "--effort", type=float, default=0.0, help="-1 to 1; below 0 compiles faster, to other code"
    )
    parser.add_argument(
        "--code", action="store_true", help="generate code too: 3 to 9 times as long, same figures"
    )
    parser.add_argument("--limit", type=float, help="seconds for a compilation")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--only-table", action="store_true", help="compile nothing")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder of the results")
    sys.exit(main(parser.parse_args()))
