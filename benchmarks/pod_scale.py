"""Estimates the cost of a training step on 1 to 1,024 replicas, from parts measured here.

    python benchmarks/pod_scale.py
    python benchmarks/pod_scale.py --step-seconds STEPS.json --bandwidth 50 --latency 1

On one device, the script measures the time and memory of one replica's towers, loss and optimizer;
the loss has as many columns as all replicas have pairs. It calculates the bytes that a replica
receives (``pod_model.py``) and checks them against every collective of a real step on 2 and 4
replicas, with both ways to gather. It assumes the bandwidth and latency of the links (flags) and
that all replicas are alike.

A real step on 2 and 4 logical CPU devices that share one core should take 2 and 4 times as long as
the towers, loss and optimizer of one replica on that core.

With ``--step-seconds``, nothing is timed. The seconds of a step on one core of a TPU come from a
file such as ``{"preset": "align_b3_mini", "pairs": 16, "seconds": {"v4": 0.018, "v5e": 0.027}}``;
they may be the rooflines of a compiled step. The table covers 8 to 1,024 cores of each kind.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure
import pod_parts
from pod_model import (
    BYTES,
    MIB,
    Sizes,
    gathered_bytes,
    link_seconds,
    received_bytes,
)

REPLICAS = (1, 2, 4, 16, 64, 256, 1_024)
CORES = (8, 16, 32, 64, 128, 256, 512, 1_024)
CHECKED = (2, 4)
FORMS = ("all_gather", "all_reduce")


def measure_parts(pairs, replicas, **options):
    """Measures the towers, loss and optimizer of one replica."""
    parts = {
        "towers": {"pairs": pairs},
        "loss": {"pairs": pairs, "replicas": replicas},
        "optimizer": {},
    }
    for part, case in parts.items():
        yield measure.in_child(pod_parts.__file__, part=part, **case, **options)


def sizes_in(facts):
    """Returns the ``Sizes`` that a part reported."""
    names = ("width", "weights", "norms", "channels")
    return Sizes(**{name: facts[name] for name in names})


def main(pairs, bandwidth, latency):
    """Measures the parts; prints the tables of estimates and then the checks."""
    print(
        f"{measure.machine()}; {pod_parts.PRESET}, {pairs} pairs a replica; "
        f"links of {bandwidth:g} GB/s and {latency:g} us\n"
    )
    print(
        f"{'replicas':>8}{'pairs':>9}{'loss MiB':>10}{'rest MiB':>10}{'memory MiB':>12}"
        f"{'towers s':>10}{'loss s':>8}{'LAMB s':>8}{'links s':>9}{'step s':>8}{'scaling':>9}"
    )
    alone = None
    tower, _, update = measure_parts(pairs, 1)
    sizes = sizes_in(tower)
    for replicas in REPLICAS:
        softmax = measure.in_child(pod_parts.__file__, part="loss", pairs=pairs, replicas=replicas)
        seconds = [part["seconds"] for part in (tower, softmax, update)]
        received = received_bytes(replicas, pairs, sizes)
        links = link_seconds(replicas, pairs, sizes, bandwidth, latency)
        # Weights and LAMB's two moments stay in memory. The peak of the towers includes the
        # gradients. Towers and loss do not run at the same time.
        memory = max(tower["peak_mib"], softmax["peak_mib"])
        memory += 3 * sizes.weights * BYTES / MIB
        step = sum(seconds) + links
        alone = alone or step
        print(
            f"{replicas:>8,}{replicas * pairs:>9,}"
            f"{received[0] / MIB:>10,.1f}{received[1] / MIB:>10,.1f}{memory:>12,.0f}"
            f"{seconds[0]:>10.3f}{seconds[1]:>8.3f}{seconds[2]:>8.3f}{links:>9.4f}"
            f"{step:>8.3f}{alone / step:>9.0%}",
            flush=True,
        )
    print_forms(pairs, sizes, REPLICAS[1:])
    print_checks(pairs, sizes)


def print_forms(pairs, sizes, numbers):
    """Prints the cost of each way to gather, by the number of replicas."""
    print("\nMiB that a replica receives to gather the rows; for one device, MiB that it sends:")
    print(f"{'replicas':>8}{'all_gather':>12}{'all_reduce':>12}{'one device':>13}")
    for replicas in numbers:
        found = [
            gathered_bytes(replicas, pairs, sizes.width, form) / MIB
            for form in (*FORMS, "one device")
        ]
        print(f"{replicas:>8,}{found[0]:>12,.1f}{found[1]:>12,.1f}{found[2]:>13,.1f}")


def print_checks(pairs, sizes):
    """Prints estimated bytes and seconds beside those of real steps."""
    print("\nchecked on logical devices that share one core:")
    print(
        f"{'replicas':>8}{'gathered by':>13}{'MiB modelled':>14}{'counted':>9}{'s modelled':>12}"
        f"{'measured':>10}"
    )
    for replicas in CHECKED:
        parts = measure_parts(pairs, replicas, one_core=True)
        alone = sum(part["seconds"] for part in parts)
        for form in FORMS:
            case = {"part": "step", "pairs": pairs, "replicas": replicas, "form": form}
            real = measure.in_child(pod_parts.__file__, **case, one_core=True)
            modelled = sum(received_bytes(replicas, pairs, sizes, form)) / MIB
            print(
                f"{replicas:>8,}{form:>13}{modelled:>14.3f}{real['received'] / MIB:>9.3f}"
                f"{replicas * alone:>12.3f}{real['seconds']:>10.3f}",
                flush=True,
            )


def scale_compiled(steps, bandwidth, latency):
    """Prints how a compiled step scales over TPU cores.

    Args:
        steps: the ``preset``, the number of ``pairs`` of a core, and the ``seconds`` of a step by
            kind of chip.
        bandwidth: bandwidth into a core, in GB/s.
        latency: latency of a hop, in microseconds.
    """
    preset, pairs = steps["preset"], steps["pairs"]
    sizes = sizes_in(measure.in_child(pod_parts.__file__, part="sizes", preset=preset))
    print(
        f"{preset}, {sizes.weights / 1e6:,.1f} M weights, {pairs} pairs a core; links of "
        f"{bandwidth:g} GB/s and {latency:g} us\n"
    )
    print(
        f"{'chip':<6}{'cores':>6}{'pairs':>8}{'loss MiB':>10}{'rest MiB':>10}{'core s':>9}"
        f"{'links s':>9}{'step s':>9}{'pairs/s':>11}{'scaling':>9}"
    )
    for chip, seconds in steps["seconds"].items():
        for cores in CORES:
            # On TPUs, TensorFlow's all_gather is a sum of zero-padded rows.
            received = received_bytes(cores, pairs, sizes, "all_reduce")
            links = link_seconds(cores, pairs, sizes, bandwidth, latency, "all_reduce")
            step = seconds + links
            print(
                f"{chip:<6}{cores:>6,}{cores * pairs:>8,}{received[0] / MIB:>10,.1f}"
                f"{received[1] / MIB:>10,.1f}{seconds:>9.4f}{links:>9.4f}{step:>9.4f}"
                f"{cores * pairs / step:>11,.0f}{seconds / step:>9.0%}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=64, help="number of pairs of a replica")
    parser.add_argument(
        "--bandwidth", type=float, default=12.5, help="bandwidth into a replica, in GB/s"
    )
    parser.add_argument(
        "--latency", type=float, default=20.0, help="latency of a hop, in microseconds"
    )
    parser.add_argument("--step-seconds", help="JSON file with the seconds of a step on one core")
    arguments = parser.parse_args()
    if arguments.step_seconds:
        with open(arguments.step_seconds) as file:
            sys.exit(scale_compiled(json.load(file), arguments.bandwidth, arguments.latency))
    sys.exit(main(arguments.pairs, arguments.bandwidth, arguments.latency))
