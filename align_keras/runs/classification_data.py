"""The labelled images for fine-tuning a classifier, checked before training starts."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from align_keras import paths
from align_keras.data.examples.example import Example, storable
from align_keras.data.examples.example_set import ExampleSet, usable
from align_keras.data.watching import WatchedFiles
from align_keras.errors import InputError, concerning
from align_keras.evaluation.tasks.classes import Classes, read_class_names
from align_keras.preprocessing.decoding import decoder, faults
from align_keras.runs.classification_settings import ClassificationSettings
from align_keras.runs.inputs import split_data


class LabelledImages:
    """Training images with classes. All classes are read once, at the start.

    Args:
        task: name of the data set.
        data: the images, a set of examples.
        class_names: path of a text file with one name per line; empty for none.
        seed: decides the order.

    Attributes:
        count: number of images at the start, including unreadable ones.
        watched: tables, shards and archives with the images.

    Raises:
        InputError: if there are no images, an image has an unknown class, or there is only one
            class.
    """

    def __init__(self, task: str, data: ExampleSet, class_names: str = "", seed: int = 0) -> None:
        self.data, self.seed = data, seed
        names = read_class_names(task, class_names, data)
        examples = _Counted(itertools.chain.from_iterable(map(data.read, data.parts)))
        found = [(one.place, one.label, one.class_name) for one in usable(examples)]
        if not found:
            raise InputError("there are no images in the data")
        names = names or sorted({own for _, _, own in found if own})
        self.classes = Classes(task, names)
        for values in found:
            self.classes.label_of(*values)
        # Includes damaged records, which have no class: the pipeline skips and counts them.
        self.count = examples.count
        self.watched = WatchedFiles(part for part in data.parts if _is_file(part))
        if len(names) < 2:
            raise InputError("classification needs at least two classes")

    def read(self, epoch: int) -> Iterator[tuple[bytes, int, str]]:
        """Yields encoded images, classes and files in the order of an epoch.

        It always yields ``count`` items, even if files are lost during the run. An unreadable image
        is an empty string, which the pipeline skips and counts.
        """
        found = map(self._read, self._examples(epoch))
        return itertools.islice(itertools.chain(found, itertools.repeat((b"", 0, ""))), self.count)

    def _examples(self, epoch: int) -> Iterator[Example]:
        # After a damaged archive or table, the rest of the epoch is lost.
        with contextlib.suppress(InputError, OSError, tf.errors.OpError):
            yield from self.data.shuffled(self.seed + epoch)

    def _read(self, example: Example) -> tuple[bytes, int, str]:
        file = storable(example.place.file)
        try:
            label = self.classes.label_of(example.place, example.label, example.class_name)
            return example.read_image(), label, file
        except InputError:
            return b"", 0, file

    def check_readable(self) -> None:
        """Raises InputError with the place of the first image that does not decode."""
        for example in self.data:
            try:
                decoder.decode_pixels(example.read_image())
            except faults.ImageFaultError as error:
                raise InputError(str(error), example.place, f"give {faults.FORMATS}") from None

    def summary(self) -> dict[str, Any]:
        """The number of images and the classes, for the file that records a run's training data."""
        return {"images": self.count, "classes": self.classes.names}


def _is_file(part: str) -> bool:
    return not part.startswith("tfds:") and paths.path_of(part).is_file()


class _Counted:
    """Counts examples while they are passed on."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self.examples, self.count = examples, 0

    def __iter__(self) -> Iterator[Example]:
        for example in self.examples:
            self.count += 1
            yield example


def open_data(settings: ClassificationSettings) -> tuple[ExampleSet, LabelledImages]:
    """Opens the images to evaluate on and those to train on.

    Raises:
        InputError: if there are no images, or an image has an unknown class.
    """
    data, task = settings.data, settings.start.task
    test, train_examples = split_data(settings).open()
    with concerning(data.trained_on):
        train = LabelledImages(task, train_examples, data.class_names, settings.run.seed)
    with concerning("data"):
        check_classes(train.classes, test)
    return test, train


def check_classes(classes: Classes, data: ExampleSet) -> None:
    """Raises InputError if the set has no images, or if an image has an unknown class."""
    labels = [
        classes.label_of(example.place, example.label, example.class_name) for example in data
    ]
    if not labels:
        raise InputError("there are no images in the data")


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How the training images have changed, given two summaries."""
    return (
        f"there are {now['images']:,} images of {len(now['classes']):,} classes, not the "
        f"{before['images']:,} of {len(before['classes']):,},"
    )
