r"""Evaluates a model by the protocols of the paper: retrieval, zero-shot, probes, CxC.

    python recipes/evaluate.py --model=runs/photos --task=retrieval:photos --data=DIR/test.jsonl
    python recipes/evaluate.py --model=hf://kakaobrain/align-base --task=zero_shot:imagenet
    python recipes/evaluate.py --model=runs/photos --task=linear_probe:food101
    python recipes/evaluate.py --model=runs/photos --suite=small --data=DATA,imagenet=DIR/labels.csv
    python recipes/evaluate.py --compare runs/photos runs/others

Prints a table with chance and, where the paper has one, its figure; writes JSON with the names of
CLIP_benchmark, the outcome of every query (.npz), and pictures; of a suite one page.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"

import dataclasses
import json
from typing import Annotated

from align_keras import paths
from align_keras.data.examples.table_columns import check_data
from align_keras.errors import InputError, concerning
from align_keras.files import write_whole
from align_keras.runs import command

#: Settings that every task of a suite takes.
OF_SUITES = ("batch_size", "bootstrap_samples", "cache", "seed")
OF_COMPARISONS = {"bootstrap_samples", "json", "seed"}


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Evaluates a preset or a finished run."""

    model: Annotated[str, paths.PRESET] = ""
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    task: str = ""
    """retrieval:NAME, zero_shot:NAME, knn:NAME, linear_probe:NAME, crisscrossed, multi30k,
    sugar_crepe or winoground. NAME is a known data set (flickr8k, flickr30k, coco, imagenet,
    imagenet_v2, imagenet_a, imagenet_r, imagenet_sketch, cifar10, cifar100, food101, pets,
    flowers, cars, dtd, caltech101, eurosat, stl10) or any other name beside --data."""
    suite: str = ""
    """Many tasks with one loaded model: paper (what the paper reports), small (minutes), or tasks
    joined by commas. A task whose result is there, of the same model and data, is not run again."""
    compare: tuple[str, ...] = ()
    """Directories of evaluated runs, or folders of results: their figures side by side with
    bootstrap intervals, and each one's difference from the first."""

    # === Data ===
    data: Annotated[str, paths.DATA] = ""
    """tfds:NAME; a table (.jsonl, .csv, .tsv, .parquet) with the columns image and captions or
    class_name; Karpathy's .json; a folder with a folder of images a class; a quoted pattern of
    shards; for crisscrossed, multi30k, sugar_crepe and winoground the folder of their files.
    Empty: the data set's name in TFDS. For a suite, joined by commas: folders that hold a table
    NAME.jsonl or a folder NAME for each data set, and NAME=PATH."""
    split: str = ""
    """Of TFDS, Karpathy's file, a table's column split, or a folder in the folder. Empty: the
    data set's own, or test."""
    select: tuple[str, ...] = ()
    """Keep only the rows of a table with these values, as in: --select kids=False."""
    images: Annotated[str, paths.FILES] = ""
    """Folder of the images. Empty: the folder of the table or of Karpathy's file."""
    captions: Annotated[str, paths.FILES] = ""
    """For crisscrossed: COCO's captions_val2014.json or Karpathy's dataset_coco.json, which say
    what the captions are."""
    train_data: Annotated[str, paths.DATA] = ""
    """What probes are trained on, as --data. Empty: --data, with --train-split."""
    train_split: str = ""
    """As --split, for the probes' training images. Empty: the data set's own, or train."""

    # === Zero-shot ===
    prompts: tuple[str, ...] = ()
    """Prompts, separated by spaces; {} stands for the class name. Empty: CLIP's for the data set,
    or 'a photo of a {}.'"""
    class_names: Annotated[str, paths.FILES] = ""
    """A text file with a class name a line, in the order of the labels. Empty: CLIP's for the data
    set, or the data's own."""
    cache: Annotated[str, paths.FILES] = "runs/class_weights"
    """Folder where embedded classes are kept; empty for none."""

    # === Run ===
    batch_size: int = 64
    """Images embedded at a time."""
    fold_size: int = 0
    """Images of a fold: retrieval is then also reported as the mean over folds. 0: the data set's
    own, 1,000 for coco."""
    bootstrap_samples: int = 1_000
    """Of the correlations of crisscrossed, and of the intervals of --compare."""
    seed: int = 0
    """Decides the order of a probe's training images and what is sampled."""
    output: Annotated[str, paths.FILES] = ""
    """Folder for JSON and pictures. Empty: evaluation/ of the run, or a folder of the preset's own
    below runs/evaluation/."""
    json: Annotated[str, paths.FILES] = ""
    """For --compare: file to write the comparison into, as JSON."""


def main(settings):
    """Embeds, scores and reports; returns the ``Result``, a suite's or a comparison's dict."""
    if settings.compare:
        return compare_runs(settings)
    if settings.suite:
        return evaluate_suite(settings)
    from align_keras.evaluation.tasks.evaluate import check_output, evaluate, make_task
    from align_keras.runs.presets import check_model, load_model

    # Before TensorFlow loads: missing files are reported at once.
    with concerning("task"):
        task = make_task(settings.task, vars(settings))
    with concerning("model"):
        output = settings.output or default_output(settings.model)
    check_output(task, output, settings.model)
    with concerning("model"):
        check_model(settings.model)
    data = task.open()
    with concerning("model"):
        model = load_model(settings.model)
    from align_keras.evaluation.fingerprint import fingerprint
    from align_keras.evaluation.tasks.suite import fingerprint_of

    # By it a suite finds this result.
    digest = fingerprint_of(task, data, fingerprint(model))
    return evaluate(model, task, output, settings.model, data, digest)


def evaluate_suite(settings):
    """Runs the tasks of a suite whose data are there; returns what its JSON holds."""
    from align_keras.evaluation.tasks import suite, suite_data
    from align_keras.runs.presets import load_model

    with concerning("suite"):
        own = {name: getattr(settings, name) for name in OF_SUITES}
        tasks = suite_data.make_tasks(settings.suite, settings.data, own)
    opened = suite.open_tasks(tasks)
    with concerning("model"):
        output = settings.output or default_output(settings.model)
        model = load_model(settings.model)
    name = settings.suite if settings.suite in suite_data.SUITES else "tasks"
    return suite.run_suite(model, name, tasks, opened, output, settings.model)


def compare_runs(settings):
    """Prints the figures of evaluated runs side by side; returns them."""
    from align_keras.evaluation.tasks import comparison

    with concerning("compare"):
        found = comparison.compare(settings.compare, settings.bootstrap_samples, settings.seed)
    print(comparison.format_comparison(found))
    if settings.json:
        write_whole(paths.path_of(settings.json), json.dumps(found, indent=2) + "\n")
    return found


def default_output(model):
    """``evaluation/`` of a run's directory, else a folder of the preset's own."""
    from align_keras.runs.presets import find_preset

    if find_preset(model) != model:
        return paths.path_of(model) / "evaluation"
    return f"runs/evaluation/{paths.file_name_of(paths.absolute(model))}"


def parse():
    """Reads the flags, and checks the columns of a table before TensorFlow loads."""
    settings = command.parse(EvaluateSettings, None, description=__doc__)
    check_mode(settings)
    if ":" in settings.task:  # others read files of their own
        needs = "captions" if settings.task.startswith("retrieval") else "class"
        with concerning("data"):
            check_data(settings.data, settings.select, needs)
    return settings


def check_mode(settings):
    """Raises an InputError unless one of task, suite and compare is given, with flags of it."""
    modes = [mode for mode in ("task", "suite", "compare") if getattr(settings, mode)]
    if len(modes) != 1:
        problem = f"{' and '.join(modes)} are given" if modes else "nothing to do"
        raise InputError(problem, remedy="give one of <task>, <suite> and <compare>")
    mode = modes[0]
    if mode != "compare" and not settings.model:
        raise InputError("which model?", remedy="give a run or a preset", setting="model")
    names = {field.name for field in dataclasses.fields(settings)}
    read = {
        "task": names - {"json"},
        "suite": {"model", "data", "output", *OF_SUITES},
        "compare": OF_COMPARISONS,
    }[mode]
    for field in dataclasses.fields(settings):
        if field.name not in {mode, *read} and getattr(settings, field.name) != field.default:
            raise InputError(f"not read beside {command.flag_of(mode)}", setting=field.name)


if __name__ == "__main__":
    command.run("evaluate.py", parse, main)
