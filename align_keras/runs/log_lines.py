"""Reads ``log.jsonl``, written by ``log.TrainingLog``."""

import json
from typing import Any

from align_keras import paths
from align_keras.paths import AnyPath

# Numbers in a valid log are smaller.
_LARGEST = 1e100


def read_log(workdir: str | AnyPath) -> list[dict[str, Any]]:
    """The lines of ``log.jsonl`` by step; only the last of lines with the same step and kind.

    Incomplete and damaged lines are skipped, and their number is printed.
    """
    path = paths.path_of(workdir) / "log.jsonl"
    texts = [text for text in path.read_bytes().split(b"\n") if text] if path.exists() else []
    found = [line for line in map(_parse_line, texts) if line]
    if left_out := len(texts) - len(found):
        print(
            f"{path}: skipped {left_out:,} of {len(texts):,} lines, which are incomplete or "
            "damaged",
            flush=True,
        )
    lines = {(line["kind"], line["step"]): line for line in found}
    return sorted(lines.values(), key=lambda line: line["step"])


def _parse_line(text: bytes) -> dict[str, Any] | None:
    """Parses a line of the log; None if it is invalid."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or line.get("kind") not in ("train", "eval"):
        return None
    numbers = [value for name, value in line.items() if name != "kind"]
    # No metric is a boolean, NaN, or too large to be drawn.
    if any(type(value) not in (int, float) or not abs(value) < _LARGEST for value in numbers):
        return None
    step = line.get("step")
    return line if type(step) is int and step >= 0 else None


def lacks_evaluation(workdir: str | AnyPath, step: int, interval: int, last_step: int) -> bool:
    """Whether an evaluation was due at the checkpoint's step but is missing: a signal ended it."""
    if not step or (step % interval and step != last_step):
        return False
    lines = read_log(workdir)
    return not any(line["kind"] == "eval" and line["step"] == step for line in lines)
