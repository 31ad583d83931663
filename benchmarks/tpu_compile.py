"""Compiles the training step for TPUs without a TPU: does it fit, and how fast is it?

    python benchmarks/tpu_compile.py --experiments quickstart --chips v5e --variants plain
    python benchmarks/tpu_compile.py --only-table

The step contains the forward and backward pass, loss and optimizer of a named experiment of
``recipes/experiments.py``, in bfloat16, with one core's share of the paper's batch: 16,384 pairs
over 1,024 cores. libtpu compiles the step for each kind of chip; nothing is executed. A compilation
takes minutes to hours. Each result is therefore a JSON file in ``--results``, and the table shows
all results in this folder. A new run adds results, and a run that was stopped continues. This needs
pip install 'align-keras[tpu-compile]'.

When the compiler begins to generate code, it has already chosen the form, order and place in memory
of every op, so all figures are known. The compilation is stopped at this point unless ``--code``
asks whether code can also be generated. Code generation takes two thirds of the time for a small
step and nine tenths for a large one.

"args" is the memory of the weights, optimizer and batch; "temps" is all other HBM that the step
needs. "MB" is all data that the ops read and write, much of which stays in the core's own memory.
"HBM MB" is the rest, as counted by ``hlo_bytes.py``. The roofline is calculated from this rest: the
time of the step at the chip's peak arithmetic and at its peak bandwidth, and the pairs per second
of one chip at the larger of the two times. Real steps are slower. The compiler counts the GFLOP of
a loop once, so with micro-batches the figure is that of one micro-batch.
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
    """Compiles the cases that have no result and prints the table."""
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
    """Compiles every case that has no result, one after another."""
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
    """Returns whether a case has a result, with code if requested; an error is also a result."""
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    return "error" in result or not code or result["memory"]["code"] is not None


def installed_versions():
    """Returns the versions that the figures depend on; exits if the compiler is missing."""
    names = ("libtpu", "jax", "tensorflow", "keras")
    try:
        return {name: importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError as error:
        sys.exit(
            f"tpu_compile.py: {error.name} is not installed: pip install -e '.[tpu-compile]', or "
            "make tpu-compile"
        )


def cases(arguments, versions):
    """Yields the cases to compile as dicts, the smallest models first."""
    shared = {"pairs": arguments.pairs, "replicas": arguments.replicas, "effort": arguments.effort}
    for experiment in arguments.experiments:
        for variant in arguments.variants:
            for chip in arguments.chips:
                case = {"experiment": experiment, "variant": variant, "chip": chip}
                yield {**case, **shared, **versions}


def compile_case(case, path, code, limit):
    """Compiles a case; returns a dict, or None if this took longer than ``limit`` seconds."""
    topology = tpu_figures.smallest_slice(case["chip"], case["replicas"])
    if topology is None:
        sys.exit(f"no slice of {case['chip']} has {case['replicas']} chips: lower --replicas")
    steps = path.parent / "steps"
    steps.mkdir(exist_ok=True)
    hlo = steps / f"{tpu_figures.step_key(case)}.hlo"
    facts = hlo.with_suffix(".json")
    if not facts.exists():
        variant = tpu_figures.settings(case["variant"], case["pairs"])
        # This is the default on TPUs; the step is traced on a CPU.
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
    """Runs a case in its own process; returns its output, or None after ``limit`` seconds."""
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
    parser.add_argument("--pairs", type=int, default=16, help="number of pairs of a chip")
    parser.add_argument(
        "--replicas",
        type=int,
        default=1,
        help="number of chips; several chips also need collectives",
    )
    parser.add_argument(
        "--effort",
        type=float,
        default=0.0,
        help="-1 to 1; values below 0 compile faster but give other code",
    )
    parser.add_argument(
        "--code",
        action="store_true",
        help="also generate code: takes 3 to 9 times as long and gives the same figures",
    )
    parser.add_argument("--limit", type=float, help="limit for a compilation, in seconds")
    parser.add_argument(
        "--again", action="store_true", help="also compile cases that have a result"
    )
    parser.add_argument("--only-table", action="store_true", help="compile nothing")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder of the results")
    sys.exit(main(parser.parse_args()))
