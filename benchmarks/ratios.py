"""Runs every comparison with other libraries, one after another, and prints one table of all.

    make benchmarks

Runs the benchmarks listed below, prints their output and, at the end, repeats their lines "ratio
WHAT RATIO AIM". This takes about an hour on two cores. No other programs should run meanwhile.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import measure

_FOLDER = Path(__file__).parent
BENCHMARKS = (
    "data_rules", "input_pipeline", "serving", "peers", "embedding_files", "startup",
)  # fmt: skip


def main(names):
    """Runs the benchmarks and prints the table; returns the exit code."""
    ratios, failed = [], []
    for name in names:
        print(f"\n=== python benchmarks/{name}.py", flush=True)
        command = [sys.executable, str(_FOLDER / f"{name}.py")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                if line.startswith("ratio  "):
                    ratios.append(line.removeprefix("ratio  ").rstrip())
        if process.returncode:
            failed.append(f"{name}.py: exit code {process.returncode}")
    print(f"\n=== {measure.machine()}\n{'':<66}{'ratio':>7}{'aim':>7}")
    print("\n".join([*ratios, *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "benchmarks", nargs="*", default=BENCHMARKS, help="names of benchmarks; default: all"
    )
    sys.exit(main(parser.parse_args().benchmarks))
