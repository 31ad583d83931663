"""The data of a task, given by settings or as the data set's own TFDS set."""

import dataclasses
from collections.abc import Iterable

from align_keras import paths
from align_keras.data import examples
from align_keras.data.examples import Example, ExampleSet
from align_keras.errors import InputError, MissingInputError, Place, concerning
from align_keras.evaluation import data_sets
from align_keras.paths import AnyPath
from align_keras.wording import meant


@dataclasses.dataclass(frozen=True)
class DataFields:
    """Where a data set of images is; empty fields stand for the data set's defaults."""

    name: str
    """Name of the data set: a key of ``data_sets.DATA_SETS``, or any other name with ``data``."""
    data: str = ""
    """The data, as in ``open_examples``."""
    split: str = ""
    images: str = ""
    """The folder of the images, if it differs from that of ``data``."""
    select: tuple[str, ...] = ()
    """``COLUMN=VALUE``: only rows of a table with these values."""

    def source(self) -> tuple[str, str]:
        """``(data, split)``; the split is empty for the default of the data.

        Raises:
            InputError: if ``data`` is empty and TFDS has no set for that name.
        """
        own = data_sets.known(self.name)
        _check_place(self.name, self.data)
        # TFDS sets have named splits; tables and folders use test and train.
        is_tfds = not self.data or self.data.startswith("tfds:")
        split = self.split or (own.split if is_tfds else "")
        return self.data or f"tfds:{own.tfds}", split

    def open_source(self, data: str, split: str) -> ExampleSet:
        """Opens what ``source`` returns."""
        return examples.open_examples(data, split, self.images, self.select)


@dataclasses.dataclass(frozen=True)
class ImageData(DataFields):
    """Images with captions or classes, to evaluate on."""

    def open(self) -> ExampleSet:
        """Opens the images; raises InputError, which names the field, if there are none."""
        with concerning("data"):
            return self.open_source(*self.source())


@dataclasses.dataclass(frozen=True)
class SplitData(DataFields):
    """Labelled images to evaluate on, and others to train on."""

    train_data: str = ""
    """Training data, in the form of ``data``; empty for the same data."""
    train_split: str = ""

    def train_source(self) -> tuple[str, str]:
        """Like ``source``, for the training images."""
        own = data_sets.known(self.name)
        data, split = self.train_data or self.data, self.train_split
        _check_place(self.name, data)
        if not data or data.startswith("tfds:"):
            split = split or own.train_split
        if not self.train_data:
            split = split or "train"
        return data or f"tfds:{own.tfds}", split

    def open(self) -> tuple[ExampleSet, ExampleSet]:
        """Opens the images to evaluate on and those to train on.

        Raises:
            InputError: if there are no images, they have no classes, or both sets are the same.
                ``setting`` is the name of the field.
        """
        with concerning("data"):
            source = self.source()
            train_source = self.train_source()
            if source == train_source:
                raise InputError(
                    f"{' '.join(source)} would be used for both training and testing",
                    remedy="give another split, or <train_data>",
                    setting="train_split",
                )
            test = self.open_source(*source)
            test.check_classes()
        try:
            with concerning("train_data"):
                train = self.open_source(*train_source)
                train.check_classes()
                return test, train
        except InputError as error:
            if error.setting == "split":
                error.setting = "train_split"
            raise


def _check_place(name: str, data: str) -> None:
    if not data and not data_sets.known(name).tfds:
        is_known = name in data_sets.DATA_SETS
        what = "TFDS does not have it" if is_known else "it is not a known name"
        remedy = "" if is_known else meant(name, data_sets.DATA_SETS)
        raise InputError(f"give the data of {name}; {what}", remedy=remedy)


def image_file(path: AnyPath) -> Example:
    """An example that has only an image."""
    return Example(Place(str(path)), path.name, path.read_bytes)


def images_in(folder: str | AnyPath, names: Iterable[str], data_set: str) -> dict[str, AnyPath]:
    """The images of a data set that are in a folder, by their names, in the order of ``names``.

    Args:
        folder: path of the folder.
        names: file names, with or without a suffix; may repeat.
        data_set: its name, for the error.

    Raises:
        MissingInputError: if there is no such folder, or none of the images is in it.
    """
    path = paths.path_of(folder)
    if not path.is_dir():
        raise MissingInputError("no such folder", Place(str(folder)))
    there: dict[str, AnyPath] = {}
    for own in sorted(path.iterdir(), key=str):
        there |= {own.name: own, own.name.rpartition(".")[0] or own.name: own}
    wanted = list(dict.fromkeys(names))
    found = {name: there[name] for name in wanted if name in there}
    if not found:
        raise MissingInputError(
            f"none of {data_set}'s images, such as {wanted[0]}", Place(str(folder))
        )
    return found
