"""``start.json``: the metrics of the trained model that a run started from."""

import json
from typing import Any

from align_keras import files
from align_keras.evaluation.metrics import ACCURACIES, RECALLS
from align_keras.paths import AnyPath

_REMEDY = "restore it, or remove it to continue without the figures of the starting model"


def write(workdir: AnyPath, held_out: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Saves the metrics of the starting model, with a description of the held-out data."""
    content = {"held_out": held_out, "metrics": metrics}
    files.write_whole(workdir / "start.json", json.dumps(content, indent=2) + "\n")


def read(workdir: AnyPath, held_out: dict[str, Any]) -> dict[str, Any]:
    """The saved metrics; empty, with a printed line, if they are for other held-out data.

    Raises:
        InputError: if the file is damaged.
    """
    path = workdir / "start.json"
    before = files.read_json(path, dict, _REMEDY) if path.exists() else {}
    if before.get("held_out") != held_out:
        print(f"{path} has no figures of the starting model on these held-out data", flush=True)
        return {}
    metrics = before.get("metrics")
    kinds = (int, float, type(None))
    if isinstance(metrics, dict) and all(
        isinstance(metrics.get(name, "missing"), kinds) for name in RECALLS + ACCURACIES
    ):
        return metrics
    raise files.damaged(path, _REMEDY)
