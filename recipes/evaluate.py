r"""Evaluates a model by the protocols of the paper: retrieval, zero-shot, probes, CxC.

    python recipes/evaluate.py --model=runs/photos --task=retrieval:photos --data=DIR/test.jsonl
    python recipes/evaluate.py --model=hf://kakaobrain/align-base --task=zero_shot:imagenet
    python recipes/evaluate.py --model=runs/photos --task=linear_probe:food101

Prints a table with chance and, where the paper has one, its figure; writes JSON with the names of
CLIP_benchmark, and pictures.
"""

import dataclasses
import sys
from pathlib import Path

from quiet_tensorflow import load_quietly

load_quietly()

import classification_tasks
import crisscrossed_task
import evaluation_data
import multilingual_task
import retrieval_task
import tyro
from run_presets import load_model

from align_keras.evaluation import data_sets, report


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """Evaluates a preset or a finished run."""

    model: str
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    task: str
    """retrieval:NAME, zero_shot:NAME, knn:NAME, linear_probe:NAME, crisscrossed or
    multi30k. NAME is a known data set (flickr30k, coco, imagenet, imagenet_v2, imagenet_a,
    imagenet_r, imagenet_sketch, cifar10, cifar100, food101, pets, flowers, cars, dtd,
    caltech101, eurosat, stl10) or any other name beside --data."""

    # === Data ===
    data: str = ""
    """tfds:NAME; a table (.jsonl, .csv, .tsv, .parquet) with the columns image and captions or
    class_name; Karpathy's .json; a folder with a folder of images a class; a quoted pattern of
    shards; for crisscrossed and multi30k the folder of their files. Empty: the data set's name in
    TFDS."""
    split: str = ""
    """Of TFDS, Karpathy's file, a table's column split, or a folder in the folder. Empty: the
    data set's own, or test."""
    select: tuple[str, ...] = ()
    """Keep only the rows of a table with these values, as in: --select kids=False."""
    images: str = ""
    """Folder of the images. Empty: the folder of the table or of Karpathy's file."""
    captions: str = ""
    """For crisscrossed: COCO's captions_val2014.json or Karpathy's dataset_coco.json, which say
    what the captions are."""
    train_data: str = ""
    """What probes are trained on, as --data. Empty: --data, with --train-split."""
    train_split: str = ""
    """As --split, for the probes' training images. Empty: the data set's own, or train."""

    # === Zero-shot ===
    prompts: tuple[str, ...] = ()
    """Prompts, separated by spaces; {} stands for the class name. Empty: CLIP's for the data set,
    or 'a photo of a {}.'"""
    class_names: str = ""
    """A text file with a class name a line, in the order of the labels. Empty: CLIP's for the data
    set, or the data's own."""
    cache: str = "runs/class_weights"
    """Folder where embedded classes are kept; empty for none."""

    # === Run ===
    batch_size: int = 64
    """Images embedded at a time."""
    fold_size: int = 0
    """Images of a fold: retrieval is then also reported as the mean over folds. 0: the data set's
    own, 1,000 for coco."""
    bootstrap_samples: int = 1_000
    """Of the correlations of crisscrossed."""
    seed: int = 0
    """Decides the order of a probe's training images and what is sampled."""
    output: str = ""
    """Folder for JSON and pictures. Empty: evaluation/ of the run, or runs/evaluation."""


def main(settings):
    """Embeds, scores and reports; returns what the JSON holds as ``metrics``."""
    kind, name = parse_task(settings.task)
    open_data, run = TASKS[kind]
    output = Path(settings.output or default_output(settings.model))
    # What is wrong with the data is told before a model is loaded.
    data = open_data(settings, name)
    model = load_model(settings.model)
    result = run(settings, name, model, data, output)
    paper = data_sets.DATA_SETS.get(name, data_sets.DataSet()).paper
    print(report.format_table(result.title, result.metrics, result.chance, result.paper(paper)))
    stem = kind if kind == name else f"{kind}-{name}"
    report.write_json(
        output / f"{stem}.json",
        name,
        settings.model,
        result.task,
        result.metrics,
        chance=result.chance,
        **result.others,
    )
    for line in result.notes:
        print(line)
    print(f"\n{output}: {', '.join([f'{stem}.json', *result.pictures])}")
    return result.metrics


#: What opens a task's data and what runs it, by its name.
TASKS = {
    "retrieval": (evaluation_data.open_data, retrieval_task.run),
    "zero_shot": (evaluation_data.open_data, classification_tasks.run_zero_shot),
    "knn": (classification_tasks.open_probe, classification_tasks.run_knn),
    "linear_probe": (classification_tasks.open_probe, classification_tasks.run_linear_probe),
    "crisscrossed": (crisscrossed_task.open_judgements, crisscrossed_task.run),
    "multi30k": (multilingual_task.open_captions, multilingual_task.run),
}


def parse_task(task):
    """``retrieval:coco`` -> ``("retrieval", "coco")``; ValueError on what is no task."""
    kind, _, name = task.partition(":")
    if kind not in TASKS:
        raise ValueError(f"--task: no {kind!r}; choose one of {', '.join(TASKS)}")
    if not name and kind in data_sets.DATA_SETS:
        name = kind
    if not name or {"/", "\\"} & set(name):
        raise ValueError(f"--task: give {kind} the name of a data set, as in {kind}:coco")
    return kind, name


def default_output(model):
    """``evaluation/`` of a run's directory, else ``runs/evaluation``."""
    is_run = (Path(model) / "preset").is_dir()
    return Path(model) / "evaluation" if is_run else Path("runs/evaluation")


if __name__ == "__main__":
    try:
        main(tyro.cli(EvaluateSettings, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: {error}")
    except KeyboardInterrupt:
        sys.exit("evaluate.py: interrupted")
