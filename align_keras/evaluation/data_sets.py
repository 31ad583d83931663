"""The data sets in papers, as plain data: TFDS names, prompts and the paper's figures."""

import dataclasses
import functools
import gzip
import importlib.resources
import json
import zlib
from typing import Any

from align_keras import files, paths
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.evaluation.metrics import RECALLS

DEFAULT_PROMPTS = ("a photo of a {}.",)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The known properties of a data set."""

    tfds: str = ""
    """Name in TensorFlow Datasets; empty if it is not there."""
    split: str = "test"
    """Split to evaluate."""
    train_split: str = "train"
    """Split to train probes on."""
    prompts: str = ""
    """Name of the prompts in ``clip_prompts/templates.json``; empty for ``DEFAULT_PROMPTS``."""
    class_names: str = ""
    """Name of the class names in ``clip_prompts/class_names.json``; empty for the data's own names.
    """
    only_present: bool = False
    """Whether to use only classes that have images, such as the 200 of 1,000 in ImageNet-A."""
    fold_size: int = 0
    """Number of images per fold, for results by fold besides those on all images (COCO 1K)."""
    paper: dict[str, float] = dataclasses.field(default_factory=dict)
    """The paper's figures, under the names in ``metrics.TITLES``."""


def _recalls(*percents: float) -> dict[str, float]:
    """Recall at 1, 5 and 10, first from image to text, then from text to image."""
    return {name: percent / 100 for name, percent in zip(RECALLS, percents, strict=True)}


# The figures are those of the paper's main model, EfficientNet-L2 and BERT-Large. They are
# zero-shot unless their names say otherwise. Nearest-neighbour figures are from the ablation with
# B7 and BERT-base, those of Multi30K from the multilingual model.
_IMAGENET: dict[str, Any] = {"prompts": "imagenet1k", "class_names": "imagenet1k"}
DATA_SETS = {
    "flickr8k": DataSet(),
    "flickr30k": DataSet(paper=_recalls(88.6, 98.7, 99.7, 75.7, 93.8, 96.8)),
    "coco": DataSet(
        tfds="coco_captions",
        fold_size=1000,
        paper=_recalls(58.6, 83.0, 89.7, 45.6, 69.8, 78.6),
    ),
    "crisscrossed": DataSet(
        paper={
            "i2t_recall_at_1": 0.781,
            "t2i_recall_at_1": 0.618,
            "t2t_recall_at_1": 0.454,
            "i2i_recall_at_1": 0.494,
            "sts_spearman": 0.729,
            "sis_spearman": 0.772,
            "sits_spearman": 0.676,
        }
    ),
    "multi30k": DataSet(
        paper={"mean_recall_en": 0.902, "mean_recall_de": 0.841, "mean_recall_fr": 0.849}
        | {"mean_recall_cs": 0.632}
    ),
    "sugar_crepe": DataSet(),
    "winoground": DataSet(),
    "imagenet": DataSet(
        **_IMAGENET,
        tfds="imagenet2012",
        split="validation",
        paper={
            "top_1": 0.764,
            "linear_probe_top_1": 0.855,
            "knn_recall_at_1": 0.693,
            "finetuned_top_1": 0.8864,
            "finetuned_top_5": 0.9867,
        },
    ),
    "imagenet_v2": DataSet(**_IMAGENET, tfds="imagenet_v2", paper={"top_1": 0.701}),
    "imagenet_a": DataSet(
        **_IMAGENET, tfds="imagenet_a", only_present=True, paper={"top_1": 0.758}
    ),
    "imagenet_r": DataSet(
        **_IMAGENET, tfds="imagenet_r", only_present=True, paper={"top_1": 0.922}
    ),
    "imagenet_sketch": DataSet(**_IMAGENET, tfds="imagenet_sketch"),
    "cifar10": DataSet(tfds="cifar10", prompts="cifar10"),
    "cifar100": DataSet(tfds="cifar100", prompts="cifar100"),
    "food101": DataSet(
        tfds="food101", split="validation", prompts="food101", paper={"finetuned_top_1": 0.9588}
    ),
    "pets": DataSet(
        tfds="oxford_iiit_pet",
        prompts="pets",
        class_names="pets",
        paper={"finetuned_top_1": 0.9619},
    ),
    "flowers": DataSet(
        tfds="oxford_flowers102",
        prompts="flowers",
        class_names="flowers",
        paper={"finetuned_top_1": 0.9965},
    ),
    "cars": DataSet(tfds="cars196", prompts="cars", paper={"finetuned_top_1": 0.9613}),
    "dtd": DataSet(tfds="dtd", prompts="dtd"),
    "caltech101": DataSet(tfds="caltech101", prompts="caltech101", class_names="caltech101"),
    "eurosat": DataSet(tfds="eurosat", split="train", prompts="eurosat", class_names="eurosat"),
    "stl10": DataSet(tfds="stl10", prompts="stl10"),
}


def known(name: str) -> DataSet:
    """The known properties of a data set; an empty ``DataSet`` for other names."""
    return DATA_SETS.get(name, DataSet())


@functools.cache
def _shipped(name: str) -> str:
    path = importlib.resources.files(__package__) / "clip_prompts" / name
    return path.read_text(encoding="utf-8")


def prompts_of(name: str) -> tuple[str, ...]:
    """The prompts of a data set, a tuple of strings with ``{}`` for the class name."""
    key = known(name).prompts
    return tuple(json.loads(_shipped("templates.json"))[key]) if key else DEFAULT_PROMPTS


def class_names_of(name: str) -> list[str] | None:
    """CLIP's class names of a data set, in the order of its labels; None if there are none."""
    key = known(name).class_names
    return json.loads(_shipped("class_names.json"))[key] if key else None


def read_names(path: str | paths.AnyPath) -> list[str]:
    """The lines of a text file, without empty ones at the end.

    Raises:
        MissingInputError: if the file does not exist.
        InputError: if the file is not UTF-8, or has an empty line between others, which would shift
            the names after it.
    """
    lines = read_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        where = Place(str(path), f"line {lines.index('') + 1}")
        raise InputError("an empty line between names", where, "remove it, or write a name there")
    return lines


def read_lines(path: str | paths.AnyPath) -> list[str]:
    """The stripped lines of a text file, plain or ``.gz``; raises like ``read_names``."""
    place = Place(str(path))
    found = paths.path_of(path)
    if not found.is_file():
        raise MissingInputError("no such file", place, "give a text file with one name per line")
    try:
        # Not `splitlines`, which also splits at characters that may occur inside a line.
        with files.opened(found, encoding="utf-8-sig") as file:
            return [line.strip() for line in file]
    except UnicodeDecodeError:
        raise InputError("not UTF-8", place, "convert it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"not readable ({error})", place, "download it again") from None


def imagenet_wnids() -> list[str]:
    """The names of ImageNet's folders, ``n01440764`` and so on, in the order of the labels."""
    return _shipped("imagenet_wnids.txt").split()
