"""Runs many tasks with one model, embeds each image once, and skips finished tasks."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from align_keras import paths
from align_keras.data.examples import ExampleSet
from align_keras.data.examples.image_files import state
from align_keras.data.examples.tfds_builder import is_prepared
from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation import data_sets, report
from align_keras.evaluation.features import EmbedsOnce
from align_keras.evaluation.fingerprint import fingerprint
from align_keras.evaluation.metrics import chief, names_of_json, title_of
from align_keras.evaluation.tasks import suite_page
from align_keras.evaluation.tasks.evaluate import Task, check_output, evaluate, json_of
from align_keras.evaluation.tasks.result import outcomes_of
from align_keras.files import write_whole
from align_keras.paths import AnyPath
from align_keras.wording import counted

#: The reason for a task that was not run because its data do not exist.
NO_DATA = "no data"
# Fields of tasks that do not change the result. Paths are compared by their content.
_WITHOUT_EFFECT = {"batch_size", "cache", "data", "images", "captions", "class_names", "train_data"}


@dataclasses.dataclass
class Opened:
    """The tasks of a suite whose data exist, and the reasons why others are not run."""

    data: dict[str, Any]
    """Results of ``Task.open``, by task name."""
    not_run: dict[str, str]
    """Reasons, by task name."""


def open_tasks(tasks: Mapping[str, Task], setting: str = "data") -> Opened:
    """Opens the data of every task.

    Args:
        tasks: tasks by name.
        setting: the setting named in an error.

    Raises:
        InputError: if no task has data that can be opened.
    """
    opened = Opened({}, {})
    for name, task in tasks.items():
        if not task_has_data(task):
            opened.not_run[name] = NO_DATA
            continue
        try:
            opened.data[name] = task.open()
        except (MissingInputError, ImportError) as error:
            opened.not_run[name] = f"{NO_DATA} ({_line(error)})"
        except InputError as error:
            opened.not_run[name] = _line(error)
    if not opened.data:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in opened.not_run.items())
        raise InputError(
            f"no task can be run: {reasons}",
            remedy="give folders that hold data sets, or NAME=PATH",
            setting=setting,
        )
    return opened


def task_has_data(task: Task) -> bool:
    """Whether a task's data were found, or TFDS has prepared them; a suite downloads nothing."""
    known = data_sets.known(task.name).tfds
    return bool(getattr(task, "data", "") or (known and is_prepared(known)))


def run_suite(
    model: Any,
    name: str,
    tasks: Mapping[str, Task],
    opened: Opened,
    output: str | AnyPath,
    model_name: str = "",
) -> dict[str, Any]:
    """Runs the tasks; prints a table, writes ``suite-NAME.json`` and ``suite-NAME.html``.

    A task is skipped if the folder holds its result for the same model, data and settings. A task
    that fails does not stop the others.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
        name: name of the suite.
        tasks: tasks by name.
        opened: result of ``open_tasks``.
        output: folder for the files.
        model_name: folder or address of the model, for the JSON.

    Returns:
        The contents of the JSON: ``results``, each as in the task's own file, and ``not_run``.

    Raises:
        InputError: after everything is written, if the data of a task could not be used.
    """
    output = paths.path_of(output)
    once, model_digest = EmbedsOnce(model), fingerprint(model)
    results, not_run = {}, dict(opened.not_run)
    for own, data in opened.data.items():
        task = tasks[own]
        digest = fingerprint_of(task, data, model_digest)
        result = find_result(output / json_of(task), digest)
        if result is None:
            try:
                check_output(task, output, model_name)
                evaluate(once, task, output, model_name, data, digest)
            except InputError as error:
                not_run[own] = _line(error)
                print(f"\n{own}: not run: {not_run[own]}")
                continue
            result = find_result(output / json_of(task), digest)
        else:
            print(f"\n{own}: its result already exists")
        assert result is not None
        results[own] = result
    written = {
        "suite": name,
        "model": "align-keras",
        "pretrained": str(model_name),
        "results": [
            {"name": own, "json": json_of(tasks[own]), **result} for own, result in results.items()
        ],
        "not_run": [{"name": own, "reason": reason} for own, reason in not_run.items()],
    }
    write_whole(output / f"suite-{name}.json", json.dumps(written, indent=2) + "\n")
    write_whole(output / f"suite-{name}.html", suite_page.render(written, output))
    print("\n" + format_suite(written))
    embedded = counted(once.num_embedded, "image")
    print(f"\n{output}: suite-{name}.json, suite-{name}.html; {embedded} embedded")
    if failed := [own for own, reason in not_run.items() if not reason.startswith(NO_DATA)]:
        raise InputError(
            f"{counted(len(failed), 'task')} could not be run: {failed[0]}: {not_run[failed[0]]}",
            setting="data",
        )
    return written


def fingerprint_of(task: Task, data: Any, model_digest: str) -> str:
    """A digest of a model, a task's settings and its data; equal digests mean equal results.

    Args:
        task: the task with its settings.
        data: result of ``task.open``.
        model_digest: result of ``fingerprint``.
    """
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}  # type: ignore[arg-type]
    settings = {own: value for own, value in fields.items() if own not in _WITHOUT_EFFECT}
    parts = data if isinstance(data, tuple) else (data,)
    sets = [part.fingerprint for part in parts if isinstance(part, ExampleSet)]
    # Labels and further captions are in tables, which the fingerprints of the sets do not cover.
    named = ("data", "train_data", "captions", "class_names") + (() if sets else ("images",))
    files = [_state(str(fields.get(own, "")), not sets) for own in named]
    text = json.dumps([model_digest, task.kind, settings, sets, files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _state(path: str, is_folder_read: bool) -> list[Any]:
    """Size and modification time of a file, or of the files in a folder."""
    if not path or path.startswith("tfds:") or not paths.is_plain(path):
        return []
    found = paths.path_of(path)
    if found.is_dir():
        if not is_folder_read:
            return []
        return sorted((file.name, *state(file)) for file in found.iterdir())
    return list(state(found))


def find_result(path: AnyPath, digest: str) -> dict[str, Any] | None:
    """The result file of a task, if it has this fingerprint and its other files exist."""
    try:
        result = json.loads(path.read_bytes())
        if result["fingerprint"] != digest or outcomes_of(path)["fingerprint"] != digest:
            return None
        pictures = [path.parent / picture for picture in result["pictures"]]
        return result if all(picture.is_file() for picture in pictures) else None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def format_suite(written: Mapping[str, Any]) -> str:
    """The table of a suite: the main figures of every task, with chance and the paper's figures."""
    columns = {"model": "metrics", "chance": "chance", "paper": "paper"}
    # Columns without any figure are left out.
    columns = {
        head: key
        for head, key in columns.items()
        if any(result.get(key) for result in written["results"])
    }
    lines = [f"suite {written['suite']}: {counted(len(written['results']), 'task')}"]
    lines.append(" " * 56 + "".join(f"{head:>10}" for head in columns))
    for result in written["results"]:
        values = [names_of_json(result.get(key) or {}, result["task"]) for key in columns.values()]
        for row, metric in enumerate(chief(values[0])):
            cells = "".join(f"{report.cell(metric, own.get(metric)):>10}" for own in values)
            lines.append(f"{'' if row else result['name']:<26}{title_of(metric):<30}{cells}")
    lines += [f"{own['name']:<26}not run: {own['reason']}" for own in written["not_run"]]
    return "\n".join(line.rstrip() for line in lines)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
