"""The classes of a data set, and embedded images with their classes."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from align_keras import lazy
from align_keras.data.examples import Example, ExampleSet
from align_keras.errors import InputError, Place, concerning
from align_keras.evaluation import data_sets
from align_keras.wording import listed

if TYPE_CHECKING:
    from align_keras.evaluation import embedding
    from align_keras.preprocessing.preprocessor import AlignPreprocessor
else:
    embedding = lazy.Module("align_keras.evaluation.embedding")


class Classes:
    """The classes of a data set.

    Args:
        name: name of the data set.
        names: names of the classes, in the order of the labels.
    """

    def __init__(self, name: str, names: Iterable[str]) -> None:
        self.name, self.names = name, list(names)
        self._places = {own: place for place, own in reversed(list(enumerate(self.names)))}
        if self.names == data_sets.class_names_of("imagenet"):
            self._places |= {wnid: place for place, wnid in enumerate(data_sets.imagenet_wnids())}

    def label_of(self, place: Place, label: int | None, class_name: str) -> int:
        """The label of an example.

        Args:
            place: place of the example, for the message.
            label: number of the class, if known; it takes precedence over the name.
            class_name: name of the class, or ImageNet's folder name for it.

        Raises:
            InputError: if the class is unknown.
        """
        found = label if label is not None else self._places.get(class_name)
        if found is None or not 0 <= found < len(self.names):
            raise InputError(
                f"its class ({class_name or label}) is none of the {len(self.names):,} of "
                f"{self.name}: {listed(self.names, 4)}",
                place,
                "give <class_names>, or data with class_name or label",
            )
        return found


def read_class_names(name: str, path: str, data: ExampleSet) -> list[str] | None:
    """The class names of a data set, in the order of the labels.

    Args:
        name: name of the data set.
        path: a text file with one name per line; empty for none.
        data: the data, which may name its classes.

    Returns:
        The names in the file, else CLIP's names, else the data's own; None if there are none.
    """
    if path:
        with concerning("class_names"):
            return data_sets.read_names(path)
    names = data_sets.class_names_of(name) or data.class_names
    return None if names is None else list(names)


@dataclasses.dataclass
class Labelled:
    """Features and classes of a data set's images."""

    features: np.ndarray
    """``(images, dim)``."""
    labels: np.ndarray
    """Integers, ``(images,)``."""
    class_names: list[str]


def embed_labelled(
    name: str,
    data: ExampleSet,
    encode: "embedding.Encode",
    preprocessor: "AlignPreprocessor",
    batch_size: int,
    class_names: Sequence[str] | None = None,
) -> Labelled:
    """Embeds images and determines their classes.

    Args:
        name: name of the data set.
        data: examples with a label or a class name.
        encode: as in ``embedding.embed_images``.
        preprocessor: as in ``embedding.embed_images``.
        batch_size: as in ``embedding.embed_images``.
        class_names: class names in the order of the labels; None for the sorted names in the data.

    Raises:
        InputError: if an image has none of the classes or cannot be read.
    """
    found: list[tuple[Place, int | None, str]] = []

    def labelled() -> Iterator[Example]:
        for example in embedding.watched(data):
            found.append((example.place, example.label, example.class_name))
            yield example

    features = embedding.embed_images(encode, labelled(), preprocessor, batch_size)
    if class_names is None:
        class_names = sorted({own for _, _, own in found if own})
    classes = Classes(name, class_names)
    labels = [classes.label_of(*values) for values in found]
    return Labelled(features, np.array(labels), classes.names)
