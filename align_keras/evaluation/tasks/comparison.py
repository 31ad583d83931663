"""Compares evaluated runs, with bootstrap intervals of their figures and differences."""

import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from align_keras import paths
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.evaluation import report
from align_keras.evaluation.bootstrap import bootstrap_means, hits_of, interval
from align_keras.evaluation.metrics import names_of_json, title_of
from align_keras.evaluation.tasks.result import outcomes_of
from align_keras.paths import AnyPath

#: A result and its outcomes; the outcomes are empty if none were saved.
Found = tuple[dict[str, Any], dict[str, np.ndarray]]


def compare(runs: Sequence[str], samples: int = 1_000, seed: int = 0) -> dict[str, Any]:
    """Compares the figures of every task for which all runs have results.

    Args:
        runs: directories of runs, or folders of results. Differences are computed from the first.
        samples: number of bootstrap samples.
        seed: decides the bootstrap samples, which are the same for every run.

    Returns:
        A dict of ``runs``, ``tasks`` (by name, lists of rows as in ``compare_task``) and ``notes``.

    Raises:
        InputError: if there are fewer than two runs, a folder has no result, or no task is common
            to all runs.
    """
    if len(runs) < 2:
        raise InputError("only one run is given", remedy="give two or more")
    found = [read_results(run) for run in runs]
    names = [name for name in found[0] if all(name in own for own in found[1:])]
    if not names:
        listed = "; ".join(f"{run}: {', '.join(own)}" for run, own in zip(runs, found, strict=True))
        raise InputError(f"no task has results from all runs ({listed})")
    notes = [
        f"{name}: only in {', '.join(r for r, own in zip(runs, found, strict=True) if name in own)}"
        for name in dict.fromkeys(name for own in found for name in own)
        if name not in names
    ]
    tasks = {}
    for name in names:
        tasks[name], note = compare_task([own[name] for own in found], samples, seed)
        notes += [f"{name}: {note}"] if note else []
    return {"runs": list(runs), "tasks": tasks, "notes": notes}


def compare_task(
    results: Sequence[Found], samples: int, seed: int
) -> tuple[list[dict[str, Any]], str]:
    """A row for each metric: ``values``, ``intervals``, and ``differences`` with intervals.

    Args:
        results: one result per run.
        samples: number of bootstrap samples.
        seed: decides the bootstrap samples.

    Returns:
        The rows, and a note. ``values`` has one value per run. Without saved outcomes, a row has no
        ``intervals``. If all runs answered the same queries, ``differences`` from the first run are
        included, as ``(value, low, high)``.
    """
    metrics = [names_of_json(result["metrics"], result["task"]) for result, _ in results]
    hits = [hits_of(outcomes) for _, outcomes in results]
    digests = {str(outcomes.get("queries", "")) for _, outcomes in results}
    is_paired = len(digests) == 1
    rows = []
    for name in metrics[0]:
        if any(name not in own for own in metrics):
            continue
        row: dict[str, Any] = {"metric": name, "values": [own[name] for own in metrics]}
        if all(name in own for own in hits):
            own = [each[name] for each in hits]
            if is_paired:
                right = np.stack([each.right for each in own])
                means = bootstrap_means(right, own[0].groups, samples, seed)
                row["differences"] = [
                    (row["values"][run] - row["values"][0], *interval(means[run] - means[0]))
                    for run in range(1, len(own))
                ]
            else:
                means = np.stack(
                    [bootstrap_means(each.right, each.groups, samples, seed) for each in own]
                )
            row["intervals"] = [interval(each) for each in means]
        rows.append(row)
    return (
        rows,
        "" if is_paired else "the runs answered different queries: no differences",
    )


def read_results(run: str) -> dict[str, Found]:
    """The results of a run, by task name.

    Args:
        run: directory of a run, whose ``evaluation/`` is read, or a folder of results.

    Raises:
        MissingInputError: if the folder does not exist.
        InputError: if the folder has no result, or a file is damaged.
    """
    folder = paths.path_of(run)
    if not folder.is_dir():
        raise MissingInputError("no such folder", Place(run))
    if (folder / "evaluation").is_dir():
        folder = folder / "evaluation"
    found = {}
    # Not `glob`, which remote paths do not have.
    for path in sorted((own for own in folder.iterdir() if own.suffix == ".json"), key=str):
        try:
            result = json.loads(path.read_bytes())
        except ValueError:
            raise InputError("damaged", Place(str(path)), "evaluate again") from None
        if isinstance(result, dict) and {"metrics", "task", "dataset"} <= result.keys():
            found[path.name.removesuffix(".json").replace("-", ":", 1)] = result, _outcomes(path)
    if not found:
        raise InputError(
            "no result of an evaluation in the folder", Place(str(folder)), "evaluate it"
        )
    return found


def _outcomes(path: AnyPath) -> dict[str, np.ndarray]:
    """The outcomes saved with a result; empty for results of earlier versions."""
    if not path.with_suffix(".npz").is_file():
        return {}
    try:
        return outcomes_of(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise InputError(
            "damaged", Place(str(path.with_suffix(".npz"))), "evaluate again"
        ) from None


def format_comparison(found: dict[str, Any]) -> str:
    """The comparison as a table.

    Args:
        found: result of ``compare``.
    """
    runs = found["runs"]
    lines = [f"{chr(65 + place)}: {run}" for place, run in enumerate(runs)]
    lines.append(
        "95 % bootstrap intervals over queries; * marks differences whose interval excludes 0"
    )
    for task, rows in found["tasks"].items():
        heads = [chr(65 + place) for place in range(len(runs))]
        heads += [f"{head} - A" for head in heads[1:]]
        lines.append(f"\n{task}\n{'':<32}" + "".join(f"{head:>25}" for head in heads))
        for row in rows:
            cells = [
                _with_interval(row["metric"], value, own)
                for value, own in zip(
                    row["values"], row.get("intervals") or [None] * len(runs), strict=True
                )
            ]
            cells += [
                f"{value:+.1%} [{low:+.1%}, {high:+.1%}]{' ' if low <= 0 <= high else '*'}"
                for value, low, high in row.get("differences", [])
            ]
            lines.append(f"{title_of(row['metric']):<32}" + "".join(f"{own:>25}" for own in cells))
    return "\n".join(line.rstrip() for line in [*lines, *(f"\n{note}" for note in found["notes"])])


def _with_interval(metric: str, value: float, own: tuple[float, float] | None) -> str:
    shown = report.cell(metric, value)
    return f"{shown} [{own[0]:.1%}, {own[1]:.1%}]" if own else shown
