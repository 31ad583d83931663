"""Derives fit, roofline and table from a compiled training step. Pure functions, no libraries."""

import dataclasses
import re

MIB, GIB = 1 << 20, 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip with its published peaks; JAX and TensorFlow treat a chip as one device.

    Args:
        slices: names of the slices by their number of devices, the smallest first.
        memory: bytes of HBM.
        flops: peak floating-point operations per second in bfloat16.
        bandwidth: peak bandwidth of HBM, in bytes per second.
    """

    slices: dict[int, str]
    memory: int
    flops: float
    bandwidth: float


# Sources: Google Cloud's documentation, "System architecture" of each kind, table of key
# specifications (cloud.google.com/tpu/docs/v4, v5e, v5p and v6e). A chip of v4 or v5p has two
# TensorCores, which the compiler treats as one device (megacore).
CHIPS = {
    "v4": Chip({4: "v4:2x2x1", 64: "v4:4x4x4", 1024: "v4:8x8x16"}, 32 * GIB, 275e12, 1_228e9),
    "v5e": Chip({4: "v5e:2x2", 64: "v5e:8x8", 256: "v5e:16x16"}, 16 * GIB, 197e12, 819e9),
    "v5p": Chip({4: "v5p:2x2x1", 64: "v5p:4x4x4", 1024: "v5p:8x8x16"}, 95 * GIB, 459e12, 2_765e9),
    "v6e": Chip({4: "v6e:2x2", 64: "v6e:8x8", 256: "v6e:16x16"}, 32 * GIB, 918e12, 1_640e9),
}

#: Ways to reduce the memory, in the order in which they are proposed: the fastest first.
REMEDIES = ("tiles", "remat", "micro", "micro+remat")
#: "whole" is the plain step without space to batch.
VARIANTS = ("plain", *REMEDIES, "whole")


def settings(variant, pairs):
    """Returns the settings that make a variant of a step with ``pairs`` pairs per chip."""
    found = {}
    if variant == "tiles":
        found["loss_tile_rows"] = max(1, pairs // 2)
    if "micro" in variant:
        found["micro_batch_size"] = max(1, pairs // 4)
    if "remat" in variant:
        found["rematerialize"] = True
    return found


def flags(variant, pairs):
    """Returns the same settings as flags of ``recipes/pretrain.py``."""
    return " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in settings(variant, pairs).items()
    )


def smallest_slice(chip, replicas):
    """Returns the name of a chip's smallest slice with enough devices; None if there is none."""
    enough = [count for count in CHIPS[chip].slices if count >= replicas]
    return CHIPS[chip].slices[min(enough)] if enough else None


def key(case):
    """Returns the name of a result's file without suffix; different cases get different names."""
    effort = f"-effort{case['effort']:g}" if case["effort"] else ""
    return (
        f"{case['experiment']}-{case['variant']}-{case['pairs']}x{case['replicas']}-"
        f"{case['chip']}{effort}-libtpu{case['libtpu']}"
    )


def step_key(case):
    """Returns the name of a step's HLO, which does not depend on the chip or the compiler."""
    return f"{case['experiment']}-{case['variant']}-{case['pairs']}x{case['replicas']}"


def needed_memory(memory):
    """Returns the bytes of HBM that a step needs: its buffers and, if known, its program."""
    return memory["hbm"] + (memory["code"] or 0)


def total_memory(report):
    """Reads the total bytes of HBM from libtpu's memory report, including weights and batch."""
    return int(re.search(r"^Memory Space: default.*\nTotal bytes: (\d+)", report, re.MULTILINE)[1])


_UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": GIB, "T": 1 << 40}
_SIZE = r"([\d.]+)([KMGT]?)"
#: The messages of libtpu 0.0.42 here, and those that JAX users have reported.
_OVERFLOW = (
    re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
)


def overflow(error):
    """Reads the needed and the available bytes from libtpu's error; None for other errors."""
    found = next(filter(None, (form.search(error) for form in _OVERFLOW)), None)
    if not found:
        return None
    needed, its_unit, limit, unit = found.groups()
    return float(needed) * _UNITS[its_unit], float(limit) * _UNITS[unit]


def first_line(error):
    """Returns the message of an error, shortened."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[0][:200] if lines else "no message"


def roofline(chip, flops, accessed):
    """Returns a chip's seconds at its peaks: ``(for the FLOPs, for the bytes)``."""
    return flops / CHIPS[chip].flops, accessed / CHIPS[chip].bandwidth


def fits(result):
    """Returns whether a step was compiled and fits into the memory of its chip."""
    return "memory" in result and needed_memory(result["memory"]) <= CHIPS[result["chip"]].memory


def remedy(result, results):
    """Returns the flags that make a step fit: those of the first compiled variant that fits."""
    same = ("experiment", "pairs", "replicas", "chip")
    others = {
        other["variant"]: other
        for other in results
        if all(other[name] == result[name] for name in same)
    }
    pairs = result["pairs"]
    for variant in REMEDIES:
        if variant in others and fits(others[variant]):
            return f"{flags(variant, pairs)} fits"
    open_ones = [flags(variant, pairs) for variant in REMEDIES if variant not in others]
    if open_ones:
        return f"not compiled yet: {', '.join(open_ones)}"
    return "no variant fits: fewer pairs a chip"


def table(results):
    """Returns the lines of the table, one per result, by experiment, replicas, chip and variant.

    Args:
        results: dicts, as in the files of the results.
    """
    order = {"chip": list(CHIPS), "variant": VARIANTS}
    results = sorted(
        results,
        key=lambda one: (
            one["weights"],
            one["experiment"],
            one["pairs"],
            one["replicas"],
            order["chip"].index(one["chip"]),
            order["variant"].index(one["variant"]),
            one["effort"],
        ),
    )
    lines, before = [_HEAD], None
    for result in results:
        names = result["experiment"], result["pairs"], result["replicas"]
        if names != before:
            lines += [
                "",
                f"{names[0]}: {result['weights'] / 1e6:,.1f} M weights, {names[1]} pairs a chip, "
                f"{names[2]} chip{'s' * (names[2] > 1)}",
            ]
        before = names
        lines.append(_line(result, results))
    return lines


_HEAD = (
    f"{'chip':<6}{'variant':<13}{'args':>7}{'temps':>8}{'all':>8}{'of MiB':>8}{'GFLOP':>9}"
    f"{'MB':>11}{'HBM MB':>11}{'ms FLOP':>9}{'ms HBM':>8}{'pairs/s':>9}{'compiled':>10}"
)


def _line(result, results):
    chip = CHIPS[result["chip"]]
    variant = result["variant"] + ("*" if result["effort"] else "")
    start = f"{result['chip']:<6}{variant:<13}"
    if "memory" not in result:
        needed = overflow(result["error"])
        if needed is None:
            return f"{start}not compiled: {first_line(result['error'])}"
        return (
            f"{start}does not fit: {needed[0] / GIB:.1f} of {needed[1] / GIB:.1f} GiB; "
            f"{remedy(result, results)}"
        )
    memory, flops = result["memory"], result["flops"]
    seconds = roofline(result["chip"], flops, result["hbm_bytes"])
    sizes = memory["arguments"], memory["hbm"] - memory["arguments"], needed_memory(memory)
    line = start + "".join(
        f"{size / MIB:>{width},.0f}"
        for size, width in zip((*sizes, chip.memory), (7, 8, 8, 8), strict=True)
    )
    line += f"{flops / 1e9:>9,.1f}"
    line += f"{result['bytes'] / 1e6:>11,.0f}{result['hbm_bytes'] / 1e6:>11,.0f}"
    line += "".join(
        f"{1e3 * part:>{width}.2f}" for part, width in zip(seconds, (9, 8), strict=True)
    )
    line += f"{result['pairs'] / max(seconds):>9,.0f}{result['seconds']:>8,.0f} s"
    line += "" if memory["code"] else ", no code"
    return line if fits(result) else f"{line}; does not fit: {remedy(result, results)}"
