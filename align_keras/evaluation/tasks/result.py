"""The result of a task, and its report."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from align_keras import lazy
from align_keras.data.examples import Example, ExampleSet
from align_keras.evaluation import data_sets
from align_keras.files import write_whole
from align_keras.paths import AnyPath
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.evaluation import report
    from align_keras.preprocessing import thumbnails
else:
    report = lazy.Module("align_keras.evaluation.report")
    thumbnails = lazy.Module("align_keras.preprocessing.thumbnails")

# Longer side of a picture on a sheet, in pixels.
_PICTURE = 320


@dataclasses.dataclass
class Result:
    """The result of a task; metrics have the names in ``metrics.TITLES``."""

    task: str
    """CLIP_benchmark's name of the task, for the JSON."""
    title: str
    """Title of the table."""
    metrics: dict[str, float]
    chance: dict[str, float]
    """The metrics of random guessing."""
    pictures: list[str] = dataclasses.field(default_factory=list)
    """File names of the drawn pictures."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """Lines printed below the table."""
    folds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Means over folds of the images; empty if there are none."""
    paper_prefix: str = ""
    """Prefix of the names of the paper's figures, if another task has figures of the same names."""
    remark: str = ""
    """A line printed below the title, if the metrics need one to be understood."""
    skipped_images: int | None = None
    """Number of training images skipped, with repeats; None if nothing was trained."""
    outcomes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """The outcome of each query, for ``bootstrap.hits_of`` and the page; empty if not saved.

    ``i2t_rank``, ``t2i_rank``, ``knn_rank`` and ``rank`` (of the class) are ranks from 0, one per
    query. ``label``, ``predicted`` and ``confidence`` describe classified images. ``t2i_group`` is
    the image of each caption. ``queries`` is a digest that is equal if the queries are equal.
    """


def report_result(
    result: Result, name: str, model_name: str, path: AnyPath, fingerprint: str = ""
) -> None:
    """Prints the table, writes the JSON, and writes the outcomes into an ``.npz`` next to it.

    Args:
        result: the result of a task.
        name: name of the data set.
        model_name: folder or address of the model, for the JSON.
        path: path of the JSON; its folder is created if necessary.
        fingerprint: a digest of the model, the data and the settings, by which a suite recognises
            the result; empty for none.
    """
    figures = data_sets.known(name).paper
    paper = {own: figures.get(result.paper_prefix + own) for own in result.metrics}
    title = "\n".join(filter(None, [result.title, result.remark]))
    print(report.format_table(title, result.metrics, result.chance, paper))
    others: dict[str, Any] = {"folds": result.folds} if result.folds else {}
    if result.skipped_images is not None:
        others["skipped_images"] = result.skipped_images
    if result.remark:
        others["remark"] = result.remark
    if fingerprint:
        others["fingerprint"] = fingerprint
    outcomes = {**result.outcomes, "fingerprint": np.array(fingerprint)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # The JSON is written last, so that everything it describes exists.
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
    """The outcomes saved with a result file; raises like ``np.load``."""
    with path.with_suffix(".npz").open("rb") as file, np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def describe_images(count: int, data: ExampleSet, noun: str = "image") -> str:
    """The number of images and their split, such as ``323 images (split test)``."""
    return counted(count, noun) + (f" (split {data.split})" if data.split else "")


def replaces_other_data(path: AnyPath, result: Result) -> bool:
    """Whether a file holds the result of other queries than this one, such as of another split."""
    try:
        before = str(outcomes_of(path)["queries"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    return "queries" in result.outcomes and before != str(result.outcomes["queries"])


def query_digest(*queries: Any) -> np.ndarray:
    """A string that is equal if the queries, which must be JSON values, are equal."""
    return np.array(hashlib.sha256(json.dumps(queries).encode()).hexdigest()[:32])


def pictures_of(data: Iterable[Example], rows: np.ndarray) -> list[np.ndarray]:
    """Reads the data again, and returns the images of some rows for a sheet.

    Args:
        data: examples; those with the same image id form one row.
        rows: integers of any shape.

    Returns:
        One image for each of ``rows``, uint8, ``(height, width, 3)``: upright, in its aspect ratio,
        with a longer side of at most 320 pixels.
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
    """Rows spread evenly over the right ones, followed by rows spread over the wrong ones.

    Args:
        right: bool, ``(rows,)``.
        number: maximum number of rows.
    """
    chosen: list[int] = []
    for rows in (np.flatnonzero(right), np.flatnonzero(~right)):
        take = min(number - number // 2, len(rows))
        chosen.extend(rows[np.linspace(0, len(rows) - 1, take).astype(int)].tolist())
    return np.array(chosen[:number], int)
