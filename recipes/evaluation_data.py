"""What the tasks of ``evaluate.py`` share: opened data, results, rows to draw."""

import dataclasses

import numpy as np
import tensorflow as tf

from align_keras import errors
from align_keras.data import examples
from align_keras.evaluation import data_sets, embedding


@dataclasses.dataclass
class Result:
    """What a task found: figures under the names of the JSON."""

    task: str
    title: str
    metrics: dict
    chance: dict
    pictures: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)
    others: dict = dataclasses.field(default_factory=dict)
    """Further fields of the JSON."""
    paper_prefix: str = ""
    """Of the names of the paper's figures where another task has the same names."""

    def paper(self, figures):
        """Those of the paper's figures that stand beside these."""
        return {name: figures.get(self.paper_prefix + name) for name in self.metrics}


def source_of(settings, name, part="evaluation"):
    """Where a data set's examples are: ``(data, split)``, the split empty for the data's own."""
    known = data_sets.DATA_SETS.get(name, data_sets.DataSet())
    train = part == "training"
    data = (settings.train_data if train else "") or settings.data
    split = settings.train_split if train else settings.split
    if not data and not known.tfds:
        where = "TFDS does not have it" if name in data_sets.DATA_SETS else "it is not a known name"
        raise ValueError(f"--data: give the data of {name}; {where}")
    if not data or data.startswith("tfds:"):
        # TFDS names its splits; tables and folders go by test and train.
        split = split or (known.train_split if train else known.split)
    if train and not settings.train_data:
        split = split or "train"
    return data or f"tfds:{known.tfds}", split


def open_data(settings, name, part="evaluation"):
    """The examples of a data set: those of --data or else of TFDS."""
    data, split = source_of(settings, name, part)
    with errors.concerning("data" if part == "evaluation" else "train_data"):
        return examples.open_examples(data, split, settings.images, settings.select)


def of_training(error):
    """The same error, of the training data's flag."""
    return type(error)(str(error).replace("--data:", "--train-data:", 1))


def pictures_of(data, rows, preprocessor):
    """The cropped images of some rows, 0 .. 1, by a second look into the data."""
    wanted = set(np.asarray(rows).ravel().tolist())
    found, ids = {}, {}
    for example in data:
        row = ids.setdefault(example.image_id, len(ids))
        if row in wanted and row not in found:
            image = preprocessor.decode_image(tf.constant(embedding.load_image(example)))
            found[row] = preprocessor.unscale(image)
            if len(found) == len(wanted):
                break
    return np.stack([found[row] for row in np.asarray(rows).ravel().tolist()])


def some_right_and_wrong(right, number):
    """Rows spread evenly over those that are right, then over those that are wrong."""
    chosen = []
    for rows in (np.flatnonzero(right), np.flatnonzero(~right)):
        take = min(number - number // 2, len(rows))
        chosen.extend(rows[np.linspace(0, len(rows) - 1, take).astype(int)].tolist())
    return np.array(chosen[:number], int)
