"""The evaluation tasks by name, and how to run one."""

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
from align_keras.evaluation.tasks.result import Result, replaces_other_data, report_result
from align_keras.evaluation.tasks.retrieval import Retrieval
from align_keras.evaluation.tasks.sugar_crepe import SugarCrepe
from align_keras.evaluation.tasks.winoground import Winoground
from align_keras.paths import AnyPath
from align_keras.wording import choose


class Task(Protocol):
    """A data set and a way to measure a model on it; a frozen dataclass."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """Name of the data set."""

    def open(self) -> Any:
        """Opens the data; raises InputError, which names the field, if it cannot be used."""

    def run(self, model: Any, data: Any, output: AnyPath) -> Result:
        """Measures a model on the result of ``open``, and draws pictures into ``output``."""


#: The classes of tasks, by kind: the part of a task's name before the colon.
TASKS: dict[str, type[Any]] = {
    task.kind: task
    for task in (
        *(Retrieval, ZeroShot, NearestNeighbours, LinearProbe),
        *(Crisscrossed, Multi30k, SugarCrepe, Winoground),
    )
}


def make_task(task: str, settings: Mapping[str, Any]) -> Task:
    """Creates the task of a name, with the settings that apply to it.

    Args:
        task: ``KIND:NAME``, such as ``retrieval:coco``; or only a kind that is also the name of a
            data set.
        settings: values by the names of the tasks' fields; other settings are ignored.

    Raises:
        InputError: if the task does not exist.
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
        output: folder for the JSON and the pictures; it is created if necessary.
        model_name: folder or address of the model, for the JSON.
        data: result of ``task.open()``; None to open the data here.
        fingerprint: for the JSON, as in ``report_result``.

    Raises:
        InputError: if the data cannot be used, or for the reasons of ``check_output``.
    """
    check_output(task, output, model_name)
    output = paths.path_of(output)
    result = task.run(model, task.open() if data is None else data, output)
    name = json_of(task)
    if replaces_other_data(output / name, result):
        print(f"replaced: {output / name} held the result of other data of the same name")
    report_result(result, task.name, model_name, output / name, fingerprint)
    print(f"\n{output}: {', '.join([name, *result.pictures])}")
    return result


def check_output(task: Task, output: str | AnyPath, model_name: str = "") -> None:
    """Raises an InputError if a folder holds the task's result for another model."""
    with concerning("output"):
        path = paths.path_of(output) / json_of(task)
        own = paths.absolute(model_name) if model_name else ""
        # Files in a run's directory belong to that run, even if the directory has been moved.
        if not own or not path.exists() or paths.absolute(path).startswith(f"{own}{os.sep}"):
            return
        try:
            before = str(json.loads(path.read_bytes())["pretrained"])
        except (ValueError, KeyError, TypeError):
            problem = "it does not hold the result of an evaluation"
            raise InputError(problem, Place(str(path)), "give another folder") from None
        if paths.absolute(before) != own:
            problem = f"it holds the result of another model, {before}"
            raise InputError(problem, Place(str(path)), "give another folder")


def json_of(task: Task) -> str:
    """The name of a task's result file."""
    stem = task.kind if task.kind == task.name else f"{task.kind}-{task.name}"
    return f"{stem}.json"
