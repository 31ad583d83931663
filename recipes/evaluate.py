r"""Evaluates a model by the protocols of the paper: retrieval, zero-shot, probes, CxC.

    python recipes/evaluate.py --model=hf://kakaobrain/align-base \
        --task=zero_shot:photos --data=DIR/labels.csv
    python recipes/evaluate.py --model=runs/photos --suite=small --data=DATA
    python recipes/evaluate.py --compare runs/photos runs/others

Prints a table of the metrics with chance levels and, if there are any, the paper's figures. Writes
JSON with CLIP_benchmark's names, the outcome of every query (.npz) and pictures. For a suite, it
also writes a page.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"

import dataclasses
import json
from typing import Annotated, Literal

from align_keras import paths, progress
from align_keras.data.examples.table_columns import check_data
from align_keras.errors import InputError, concerning
from align_keras.evaluation import zero_shot
from align_keras.files import write_whole
from align_keras.runs import command, next_steps
from align_keras.runs.settings import COMMON, Heading

#: Settings that a suite passes to all of its tasks.
OF_SUITES = ("batch_size", "bootstrap_samples", "cache", "seed")
OF_COMPARISONS = {"bootstrap_samples", "json", "seed"}


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Evaluates a preset or a finished run."""

    model: Annotated[str, paths.PRESET, COMMON, Heading("what to do")] = ""
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has saved
    one."""
    task: Annotated[str, COMMON] = ""
    """Protocol and data set: retrieval:NAME, zero_shot:NAME, knn:NAME, linear_probe:NAME,
    crisscrossed, multi30k, sugar_crepe or winoground. NAME is a known data set (flickr8k,
    flickr30k, coco, imagenet, imagenet_v2, imagenet_a, imagenet_r, imagenet_sketch, cifar10,
    cifar100, food101, pets, flowers, cars, dtd, caltech101, eurosat, stl10), or any other name
    together with --data."""
    suite: Annotated[str, COMMON] = ""
    """Runs many tasks but loads the model once: paper (all tasks of the paper), small (takes
    minutes), or tasks joined by commas. A task that already has a result for this model and data is
    not run again."""
    compare: Annotated[tuple[str, ...], COMMON] = ()
    """Directories of evaluated runs, or folders of results. Prints their figures side by side with
    bootstrap intervals, and the difference of each from the first."""

    data: Annotated[str, paths.DATA, COMMON, Heading("data")] = ""
    """Evaluation data: tfds:NAME; a table (.jsonl, .csv, .tsv, .parquet) with the columns image and
    captions or class_name; Karpathy's .json; a folder with one folder of images per class; a quoted
    pattern of shards; for crisscrossed, multi30k, sugar_crepe and winoground the folder of their
    files. Empty: the data set of --task, read from TFDS. With --suite, one or more of these,
    joined by commas: NAME=PATH for one data set, or a folder with NAME.jsonl or a folder NAME for
    each data set."""
    split: Annotated[str, COMMON] = ""
    """Split of --data: a TFDS split, a split of Karpathy's file, a value of the table's column
    split, or a subfolder. Empty: the data set's own test split, otherwise test.
    """
    select: tuple[str, ...] = ()
    """Use only the table rows with these values, such as --select kids=False."""
    images: Annotated[str, paths.FILES] = ""
    """Folder to which image paths are relative. Empty: the folder of the table or of Karpathy's
    file."""
    captions: Annotated[str, paths.FILES] = ""
    """For crisscrossed: COCO's captions_val2014.json or Karpathy's dataset_coco.json, from which
    the text of each caption is read."""
    train_data: Annotated[str, paths.DATA] = ""
    """Training data of the probes, in any form that --data takes. Empty: --data, with
    --train-split."""
    train_split: str = ""
    """Split of the probes' training data, as in --split. Empty: the data set's own training split,
    otherwise train.
    """

    prompts: Annotated[tuple[str, ...], Heading("zero-shot")] = ()
    """Prompts, separated by spaces; {} stands for the class name. Empty: CLIP's prompts for the
    data set, or 'a photo of a {}.'"""
    class_names: Annotated[str, paths.FILES] = ""
    """A text file with one class name per line, in label order. Empty: CLIP's names for a known
    data set, otherwise the names in the data."""
    cache: Annotated[str, paths.FILES] = "runs/class_weights"
    """Folder in which the embeddings of the classes are kept for later evaluations. Empty: they are
    not kept."""

    batch_size: Annotated[int, COMMON, Heading("run")] = 64
    """Images per batch."""
    runtime: Literal["tensorflow", "litert"] = "tensorflow"
    """Library that computes the embeddings. litert is faster on a CPU, but needs pip install
    'align-keras[litert]' and some seconds to convert the model.
    """
    fold_size: int = 0
    """Images per fold: retrieval is also reported as the mean over folds of this size. 0: the data
    set's own fold size, which only coco has (1,000)."""
    bootstrap_samples: int = 1_000
    """Number of bootstrap samples for the correlations of crisscrossed and the intervals of
    --compare."""
    seed: int = 0
    """Random seed of the probes' training order and of all sampling."""
    output: Annotated[str, paths.FILES, COMMON] = ""
    """Folder for JSON and pictures. Empty: evaluation/ in the run's directory; for other models, a
    folder in runs/evaluation/.
    """
    json: Annotated[str, paths.FILES] = ""
    """JSON file for the figures of --compare."""


def main(settings):
    """Embeds, scores and reports.

    Returns:
        The ``Result`` of a task, or the dict of a suite or a comparison.
    """
    if settings.compare:
        return compare_runs(settings)
    if settings.suite:
        return evaluate_suite(settings)
    from align_keras.evaluation.tasks.evaluate import check_output, evaluate, make_task
    from align_keras.runs.presets import check_model, load_model

    # This runs before TensorFlow loads, so that missing files are reported at once.
    with concerning("task"):
        task = make_task(settings.task, vars(settings))
    with concerning("model"):
        output = settings.output or default_output(settings.model)
    check_output(task, output, settings.model)
    with concerning("model"):
        check_model(settings.model)
    with progress.working("opening the data"):
        data = task.open()
    with concerning("model"):
        model = load_model(settings.model, settings.runtime)
    from align_keras.evaluation.fingerprint import fingerprint
    from align_keras.evaluation.tasks.suite import fingerprint_of

    # The digest by which a suite recognises this result.
    digest = fingerprint_of(task, data, fingerprint(model))
    result = evaluate(model, task, output, settings.model, data, digest)
    tell_next(settings)
    return result


def evaluate_suite(settings):
    """Runs the tasks of a suite that have data; returns the contents of its JSON."""
    from align_keras.evaluation.tasks import suite_data
    from align_keras.runs.presets import check_model, load_model

    with concerning("suite"):
        own = {name: getattr(settings, name) for name in OF_SUITES}
        tasks = suite_data.make_tasks(settings.suite, settings.data, own)
    with concerning("model"):
        check_model(settings.model)
    from align_keras.evaluation.tasks import suite  # loads TensorFlow

    with progress.working("opening the data"):
        opened = suite.open_tasks(tasks)
    with concerning("model"):
        output = settings.output or default_output(settings.model)
        model = load_model(settings.model, settings.runtime)
    name = settings.suite if settings.suite in suite_data.SUITES else "tasks"
    found = suite.run_suite(model, name, tasks, opened, output, settings.model)
    tell_next(settings)
    return found


def tell_next(settings):
    """Prints the commands that compare the figures with other runs and build a search index."""
    model = settings.model
    own = settings.output or (model if os.path.isdir(model) else default_output(model))
    compare = next_steps.recipe("evaluate.py", "--compare", str(own), "ANOTHER_RUN")
    search = next_steps.recipe("search.py", "index", model=model, images="PHOTOS", output="INDEX")
    next_steps.show(compare, search)


def compare_runs(settings):
    """Prints a comparison of evaluated runs; returns it."""
    from align_keras.evaluation.tasks import comparison

    with concerning("compare"):
        found = comparison.compare(settings.compare, settings.bootstrap_samples, settings.seed)
    print(comparison.format_comparison(found))
    if settings.json:
        write_whole(paths.path_of(settings.json), json.dumps(found, indent=2) + "\n")
    return found


def default_output(model):
    """``evaluation/`` in a run's directory; for a preset, a folder named after it."""
    from align_keras.runs.presets import find_preset

    if find_preset(model) != model:
        return paths.path_of(model) / "evaluation"
    return f"runs/evaluation/{paths.file_name_of(paths.absolute(model))}"


def parse():
    """Reads the flags; checks names and the columns of a table before TensorFlow loads."""
    settings = command.parse(EvaluateSettings, None, description=__doc__)
    check_mode(settings)
    with concerning("prompts"):
        zero_shot.fill_prompts([], settings.prompts)
    if settings.task:
        from align_keras.evaluation.tasks.evaluate import make_task

        with concerning("task"):
            make_task(settings.task, vars(settings))
    if ":" in settings.task:  # other tasks read their own files
        needs = "captions" if settings.task.startswith("retrieval") else "class"
        with concerning("data"):
            check_data(settings.data, settings.select, needs)
    return settings


def check_mode(settings):
    """Raises InputError unless one of task, suite and compare is given, with its own flags only."""
    modes = [mode for mode in ("task", "suite", "compare") if getattr(settings, mode)]
    if len(modes) != 1:
        problem = f"{' and '.join(modes)} are given" if modes else "nothing to do"
        raise InputError(problem, remedy="give one of <task>, <suite> and <compare>")
    mode = modes[0]
    if mode != "compare" and not settings.model:
        raise InputError("no model is given", remedy="give a run or a preset", setting="model")
    names = {field.name for field in dataclasses.fields(settings)}
    read = {
        "task": names - {"json"},
        "suite": {"model", "data", "output", "runtime", *OF_SUITES},
        "compare": OF_COMPARISONS,
    }[mode]
    for field in dataclasses.fields(settings):
        if field.name not in {mode, *read} and getattr(settings, field.name) != field.default:
            raise InputError(f"cannot be used with {command.flag_of(mode)}", setting=field.name)


if __name__ == "__main__":
    command.run("evaluate.py", parse, main)
