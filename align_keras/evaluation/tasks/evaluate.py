"""The tasks by name, and how one is run."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from align_keras import paths
from align_keras.errors import InputError, Place, concerning
from align_keras.evaluation import data_sets
from align_keras.evaluation.tasks.classification import LinearProbe, NearestNeighbours, ZeroShot
from align_keras.evaluation.tasks.crisscrossed import Crisscrossed
from align_keras.evaluation.tasks.multi30k import Multi30k
from align_keras.evaluation.tasks.result import Result, report_result
from align_keras.evaluation.tasks.retrieval import Retrieval
from align_keras.evaluation.tasks.sugar_crepe import SugarCrepe
from align_keras.evaluation.tasks.winoground import Winoground
from align_keras.paths import AnyPath
from align_keras.wording import choose


class Task(Protocol):
    """A data set with how a model is measured on it: a frozen dataclass."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Name of the data set."""

    def open(self) -> Any:
        """Opens the data; InputError, with the field in ``setting``, if they cannot be used."""

    def run(self, model: Any, data: Any, output: AnyPath) -> Result:
        """Measures a model on what ``open`` returned; draws pictures into ``output``."""


#: By what stands before the colon of a task.
TASKS: dict[str, type[Any]] = {
    task.kind: task
    for task in (
        *(Retrieval, ZeroShot, NearestNeighbours, LinearProbe),
        *(Crisscrossed, Multi30k, SugarCrepe, Winoground),
    )
}


def make_task(task: str, settings: Mapping[str, Any]) -> Task:
    """The task of a name, with the settings that apply to it.

    Args:
        task: ``KIND:NAME``, such as ``retrieval:coco``; or a kind alone that names its data set.
        settings: values by the names of the tasks' fields; others are not read.

    Raises:
        InputError: if there is no such task.
    """
    kind, _, name = task.partition(":")
    if kind not in TASKS:
        raise InputError(f"unknown task {kind!r}", remedy=choose(kind, TASKS))
    if not name and kind in data_sets.DATA_SETS:
        name = kind
    if not name or {"/", "\\"} & set(name):
        raise InputError(f"{kind} needs the name of a data set", remedy=f"as in {kind}:coco")
    own = {field.name for field in dataclasses.fields(TASKS[kind])} - {"name"}
    return TASKS[kind](name, **{name: settings[name] for name in own & settings.keys()})


def evaluate(
    model: Any,
    task: Task,
    output: str | AnyPath,
    model_name: str = "",
    data: Any = None,
    fingerprint: str = "",
) -> Result:
    """Measures a model, prints a table, and writes JSON, outcomes and pictures.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
        task: such as ``Retrieval("photos", "test.jsonl")``.
        output: folder of the JSON and the pictures; it is made.
        model_name: for the JSON: where the model is.
        data: what ``task.open()`` returned; None: it is opened here.
        fingerprint: for the JSON, as in ``report_result``.

    Raises:
        InputError: if the data cannot be used, or as ``check_output``.
    """
    check_output(task, output, model_name)
    output = paths.path_of(output)
    result = task.run(model, task.open() if data is None else data, output)
    name = json_of(task)
    report_result(result, task.name, model_name, output / name, fingerprint)
    print(f"\n{output}: {', '.join([name, *result.pictures])}")
    return result


def check_output(task: Task, output: str | AnyPath, model_name: str = "") -> None:
    """Raises an InputError if a folder holds what the task found of another model."""
    with concerning("output"):
        path = paths.path_of(output) / json_of(task)
        own = paths.absolute(model_name) if model_name else ""
        # What lies in a run's directory is of that run, wherever it was when it was written.
        if not own or not path.exists() or paths.absolute(path).startswith(f"{own}{os.sep}"):
            return
        try:
            before = str(json.loads(path.read_bytes())["pretrained"])
        except (ValueError, KeyError, TypeError):
            problem = "holds no result of an evaluation"
            raise InputError(problem, Place(str(path)), "give another folder") from None
        if paths.absolute(before) != own:
            problem = f"holds the result of another model, {before}"
            raise InputError(problem, Place(str(path)), "give another folder")


def json_of(task: Task) -> str:
    """The name of a task's result file."""
    stem = task.kind if task.kind == task.name else f"{task.kind}-{task.name}"
    return f"{stem}.json"
