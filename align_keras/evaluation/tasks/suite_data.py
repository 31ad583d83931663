"""Suites of tasks by name, and the location of each task's data."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from align_keras import paths
from align_keras.errors import InputError
from align_keras.evaluation import data_sets
from align_keras.evaluation.tasks.evaluate import TASKS, Task, make_task
from align_keras.paths import AnyPath
from align_keras.wording import listed, meant

#: Tasks of each suite, by the name of the suite.
SUITES = {
    # The paper's tables 1 to 5 and 10, without fine-tuning.
    "paper": (
        "retrieval:flickr30k",
        "retrieval:coco",
        "crisscrossed",
        "multi30k",
        "zero_shot:imagenet",
        "zero_shot:imagenet_r",
        "zero_shot:imagenet_a",
        "zero_shot:imagenet_v2",
        "linear_probe:imagenet",
        "knn:imagenet",
    ),
    # Test sets of at most some thousand images: minutes on two cores.
    "small": (
        "retrieval:flickr8k",
        "retrieval:flickr30k",
        "zero_shot:cifar10",
        "knn:cifar10",
        "linear_probe:cifar10",
        "zero_shot:pets",
        "zero_shot:dtd",
        "sugar_crepe",
        "winoground",
    ),
}
# Names of tables in a data set's folder; the first that exists is used.
_TABLES = ("pairs", "labels", "test")
_ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")
# Further files in the same folder, by the field of the task that reads them.
_BESIDE = {
    "captions": ("captions_val2014.json", "dataset_coco.json", "test_2016_flickr.txt"),
    "images": ("images", "val2014", "val2017"),
}


def tasks_of(suite: str) -> tuple[str, ...]:
    """The tasks of a suite.

    Args:
        suite: a name of ``SUITES``, or tasks joined by commas.

    Raises:
        InputError: if a name is neither a suite nor a task.
    """
    if suite in SUITES:
        return SUITES[suite]
    tasks = tuple(filter(None, map(str.strip, suite.split(","))))
    for task in tasks or (suite,):
        if task.partition(":")[0] not in TASKS:
            names = (own if own in data_sets.DATA_SETS else f"{own}:NAME" for own in TASKS)
            remedy = (
                f"{meant(task, (*SUITES, *TASKS))} choose one of the suites {', '.join(SUITES)}, "
                f"or list tasks: {', '.join(names)}"
            )
            raise InputError(f"unknown suite or task {task!r}", remedy=remedy.strip())
        make_task(task, {})
    return tuple(dict.fromkeys(tasks))


def make_tasks(suite: str, roots: str, settings: Mapping[str, Any]) -> dict[str, Task]:
    """The tasks of a suite by name, each with its data if they are found.

    Args:
        suite: as in ``tasks_of``.
        roots: as in ``find_data``.
        settings: as in ``make_task``, such as ``batch_size``; without those that name data.

    Raises:
        InputError: as in ``tasks_of``; if a data set is neither known nor found; or if a folder of
            ``roots`` does not exist. ``setting`` is then ``data``.
    """
    places = [part for part in roots.split(",") if part]
    named = {}
    for part in places:
        name, is_named, path = part.partition("=")
        if is_named:
            # the shell does not expand it after the equals sign
            named[name] = os.path.expanduser(path)
    folders = [paths.path_of(part) for part in places if "=" not in part]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder",
                remedy="give folders that hold data sets, or NAME=PATH",
                setting="data",
            )
    tasks = {}
    for task in tasks_of(suite):
        name = task.partition(":")[2] or task
        found = find_data(name, named, folders)
        if not found and name not in data_sets.DATA_SETS:
            known = [*data_sets.DATA_SETS, *named]
            raise InputError(
                f"{name} of {task} is neither a known data set nor found in the data folders",
                remedy=f"{meant(name, known)} give {name}=PATH, or one of {listed(known)}".strip(),
                setting="data",
            )
        tasks[task] = make_task(task, {**settings, **found})
    return tasks


def find_data(name: str, named: Mapping[str, str], folders: Iterable[AnyPath]) -> dict[str, str]:
    """The fields of a task that locate its data: ``data``, and ``images`` and ``captions``.

    Args:
        name: name of the data set.
        named: paths of data, by data set.
        folders: folders to search for ``NAME.jsonl``, or for a folder ``NAME`` with ``pairs.jsonl``
            or ``labels.jsonl`` (or ``.csv``, ``.tsv``, ``.parquet``), Karpathy's
            ``dataset_NAME.json``, shards, or one folder per class.

    Returns:
        A dict of fields; empty if no data were found.
    """
    if name in named:
        path = paths.path_of(named[name])
        return _in_folder(name, path) if path.is_dir() else {"data": str(path)}
    for folder in folders:
        for ending in _ENDINGS:
            if (folder / f"{name}{ending}").is_file():
                return {"data": str(folder / f"{name}{ending}")}
        if (folder / name).is_dir():
            return _in_folder(name, folder / name)
    return {}


def _in_folder(name: str, folder: AnyPath) -> dict[str, str]:
    if name in TASKS:  # the name is also a task that reads several files of the folder
        found = {"data": str(folder)}
        for field, own in _BESIDE.items():
            there = [str(folder / file) for file in own if (folder / file).exists()]
            found |= {field: there[0]} if there else {}
        return found
    tables = [folder / f"{table}{end}" for table in _TABLES for end in _ENDINGS]
    for table in tables:
        if table.is_file():
            return {"data": str(table)}
    if (folder / f"dataset_{name}.json").is_file():
        images = folder / "images"
        return {"data": str(folder / f"dataset_{name}.json")} | (
            {"images": str(images)} if images.is_dir() else {}
        )
    shards = any(path.name.endswith(".tfrecord") for path in folder.iterdir())
    return {"data": str(folder / "*.tfrecord") if shards else str(folder)}
