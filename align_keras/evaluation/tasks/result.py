"""The result of a task, and its report."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from align_keras import lazy
from align_keras.data.examples import Example
from align_keras.evaluation import data_sets
from align_keras.files import write_whole
from align_keras.paths import AnyPath

if TYPE_CHECKING:
    from align_keras.evaluation import report
    from align_keras.preprocessing import thumbnails
else:
    report = lazy.Module("align_keras.evaluation.report")
    thumbnails = lazy.Module("align_keras.preprocessing.thumbnails")

# Of a sheet: pixels of the longer side.
_PICTURE = 320


@dataclasses.dataclass
class Result:
    """The result of a task; metrics have the names of ``metrics.TITLES``."""

    task: str
    """CLIP_benchmark's name of the task, for the JSON."""
    title: str
    """Title of the table."""
    metrics: dict[str, float]
    chance: dict[str, float]
    """The metrics of a model without any skill."""
    pictures: list[str] = dataclasses.field(default_factory=list)
    """Names of the files that were drawn."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """Printed below the table."""
    folds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Means over folds of the images; empty if there are none."""
    paper_prefix: str = ""
    """Before the names of the paper's figures, if another task has figures of the same names."""
    skipped_images: int | None = None
    """Training images that were skipped, each as often as it was; None if nothing was trained."""
    outcomes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """The outcome of each query, for ``bootstrap.hits_of`` and the page; empty if not kept.

    ``i2t_rank``, ``t2i_rank``, ``knn_rank`` and ``rank`` (of the class) count from 0, one a query;
    ``label``, ``predicted`` and ``confidence`` are of classified images, ``t2i_group`` is the image
    of each caption, and ``queries`` is a digest that is the same if the queries are.
    """


def report_result(
    result: Result, name: str, model_name: str, path: AnyPath, fingerprint: str = ""
) -> None:
    """Prints the table and writes the JSON, and beside it an ``.npz`` of the outcomes.

    Args:
        result: the result of a task.
        name: name of the data set.
        model_name: for the JSON: where the model is.
        path: path of the JSON; its folder is made.
        fingerprint: a digest of the model, the data and the settings, by which a suite finds the
            result; empty for none.
    """
    figures = data_sets.known(name).paper
    paper = {own: figures.get(result.paper_prefix + own) for own in result.metrics}
    print(report.format_table(result.title, result.metrics, result.chance, paper))
    others: dict[str, Any] = {"folds": result.folds} if result.folds else {}
    if result.skipped_images is not None:
        others["skipped_images"] = result.skipped_images
    if fingerprint:
        others["fingerprint"] = fingerprint
    outcomes = {**result.outcomes, "fingerprint": np.array(fingerprint)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # The JSON goes last: what it describes is there.
    write_whole(path.with_suffix(".npz"), lambda partial: np.savez_compressed(partial, **outcomes))
    others |= {
        "paper": {own: value for own, value in paper.items() if value is not None},
        "title": result.title,
        "pictures": result.pictures,
        "notes": result.notes,
    }
    report.write_json(
        path, name, model_name, result.task, result.metrics, chance=result.chance, **others
    )
    for line in result.notes:
        print(line)


def outcomes_of(path: AnyPath) -> dict[str, np.ndarray]:
    """The outcomes beside a result file; raises like ``np.load``."""
    with path.with_suffix(".npz").open("rb") as file, np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def query_digest(*queries: Any) -> np.ndarray:
    """A string that is the same if the queries, which JSON can hold, are."""
    return np.array(hashlib.sha256(json.dumps(queries).encode()).hexdigest()[:32])


def pictures_of(data: Iterable[Example], rows: np.ndarray) -> list[np.ndarray]:
    """Reads the data again and returns the images of some rows, for a sheet.

    Args:
        data: images with the same id form one row.
        rows: integers of any shape.

    Returns:
        One for each of ``rows``, uint8, ``(height, width, 3)``: upright and in its own shape, the
        longer side at most 320 pixels.
    """
    asked = np.asarray(rows).ravel().tolist()
    wanted = set(asked)
    found: dict[int, np.ndarray] = {}
    ids: dict[str, int] = {}
    for example in data:
        row = ids.setdefault(example.image_id, len(ids))
        if row in wanted and row not in found:
            found[row] = thumbnails.small_pixels(example.read_image(), _PICTURE)
            if len(found) == len(wanted):
                break
    return [found[row] for row in asked]


def some_right_and_wrong(right: np.ndarray, number: int) -> np.ndarray:
    """Rows spread evenly over the right ones, then over the wrong ones.

    Args:
        right: bool, ``(rows,)``.
        number: how many rows, at most.
    """
    chosen: list[int] = []
    for rows in (np.flatnonzero(right), np.flatnonzero(~right)):
        take = min(number - number // 2, len(rows))
        chosen.extend(rows[np.linspace(0, len(rows) - 1, take).astype(int)].tolist())
    return np.array(chosen[:number], int)
