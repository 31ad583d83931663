"""The report of an evaluation: a table, and JSON in CLIP_benchmark's format."""

import json
from collections.abc import Mapping
from typing import Any

from align_keras import paths
from align_keras.evaluation.metrics import json_names, title_of
from align_keras.files import write_whole
from align_keras.paths import AnyPath


def format_table(
    title: str,
    metrics: Mapping[str, float],
    chance: Mapping[str, float | None],
    paper: Mapping[str, float | None],
) -> str:
    """Every metric with its chance level and the paper's figure, as text.

    Args:
        title: title of the table.
        metrics: fractions by the names in ``metrics.TITLES``; ranks if the name ends in ``rank``.
        chance: the metrics of random guessing; some may be missing.
        paper: the paper's figures; some may be missing.
    """
    columns = {"model": metrics, "chance": chance, "paper": paper}
    # Columns without any figure are left out.
    columns = {
        head: values
        for head, values in columns.items()
        if any(values.get(name) is not None for name in metrics)
    }
    lines = [f"\n{title}", f"{'':<34}" + "".join(f"{head:>10}" for head in columns)]
    for name in metrics:
        cells = [cell(name, values.get(name)) for values in columns.values()]
        lines.append(f"{title_of(name):<34}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def cell(name: str, value: float | None) -> str:
    """A metric as text for a table; empty for None."""
    if value is None:
        return ""
    if name.endswith(("rank", "pairs")):
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.3f}" if "spearman" in name else f"{value:.1%}"


def write_json(
    path: str | AnyPath,
    dataset: str,
    model: str,
    task: str,
    metrics: Mapping[str, float],
    **others: Mapping[str, float] | int | str | list[str],
) -> None:
    """Writes a result with CLIP_benchmark's names.

    Args:
        path: path of the file; its folder is created if necessary.
        dataset: name of the data set.
        model: name or address of the preset.
        task: ``zeroshot_retrieval``, ``zeroshot_classification``, ``linear_probe``, ...
        metrics: values by the names in ``metrics.TITLES``.
        **others: further values, such as ``chance``, counts and texts.
    """
    path = paths.path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "dataset": dataset,
        "model": "align-keras",
        "pretrained": str(model),
        "task": task,
        "metrics": json_names(metrics, task),
        "language": "en",
        **{
            name: json_names(value, task) if isinstance(value, Mapping) else value
            for name, value in others.items()
        },
    }
    write_whole(path, json.dumps(result, indent=2) + "\n")
