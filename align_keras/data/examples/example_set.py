"""A set of examples from any source: parts to read, a shuffled order, classes and a count."""

import collections
import functools
import hashlib
import itertools
import json
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from align_keras.data.examples.columns import no_name
from align_keras.data.examples.example import Example, caption_fault
from align_keras.errors import InputError, Place
from align_keras.wording import counted

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
# Images to examine before a model is loaded.
_FIRST_IMAGES = 1_000


class ExampleSet:
    """Examples that can be read repeatedly, always in the same order.

    Each kind of source is a subclass. It sets ``parts`` and overrides ``read`` and ``fingerprint``.
    It also overrides other methods if it can answer them without reading all the data.

    Iteration raises InputError, with the place, on an example that cannot be used. It skips damaged
    records and logs how many there were. ``read``, ``shuffled`` and ``images`` yield every example,
    with its ``fault``.
    """

    parts: list[str]
    """Names of the parts that can be read independently, for example by Beam workers."""
    split: str = ""
    """The split of the data that was chosen; empty if the data have none, or for all."""

    def read(self, part: str) -> Iterator[Example]:
        """Yields the examples of one of ``parts``, including those with a fault."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Example]:
        for part in self.parts:
            yield from usable(self.read(part))

    def shuffled(self, seed: int) -> Iterator[Example]:
        """Yields all examples, including those with a fault, in an order that ``seed`` decides.

        Rows of tables and files of folders come in random order. Shards come in random order too,
        but the records of a shard stay together.
        """
        for part in in_order(self.parts, seed):
            yield from self.read(part)

    def images(self) -> Iterator[Example]:
        """Yields each image once, as its first example; images with a fault are included."""
        seen = set()
        for example in itertools.chain.from_iterable(map(self.read, self.parts)):
            if example.image_id not in seen:
                seen.add(example.image_id)
                yield example

    def check_captions(self) -> None:
        """Raises InputError if none of the first images has a caption, or a caption is not text."""
        # Checks every caption, so that a fault is reported before a model is loaded.
        texts = [len(example.queries) for example in itertools.islice(self, _FIRST_IMAGES)]
        if any(texts):
            return
        first = next(iter(self), None)
        faults = [caption_fault(text) for text in first.texts] if first else []
        raise InputError(
            next(filter(None, faults), "no caption in the data"),
            Place(first.place.file if first else ""),
            "retrieval needs captions",
        )

    def check_classes(self) -> None:
        """Raises InputError if none of the first images has a class."""
        found: dict[str, None] = {}
        place = Place()
        for example in itertools.islice(self, _FIRST_IMAGES):
            if example.class_name or example.label is not None:
                return
            found.update(dict.fromkeys(example.found))
            place = Place(example.place.file)
        problem = no_name(("class_name", "label"), found)
        raise InputError(problem, place, "classification needs one of them")

    @functools.cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of their labels; None if the data has none.

        Without labels, the names are sorted. Labels with gaps come from a list of names that the
        data does not hold; the result is then None.

        Raises:
            InputError: if a label has two names, a name has two labels, or only some names have
                labels.
        """
        return names_by_label(self)

    @functools.cached_property
    def count(self) -> int:
        """The number of images, or an upper bound."""
        return sum(1 for _ in self.images())

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change if an image is added, removed, renamed or rewritten.

        Derived from names, sizes and modification times, not from the bytes of the images.
        """
        raise NotImplementedError


def usable(examples: Iterable[Example]) -> Iterator[Example]:
    """Yields the examples; raises InputError, with the place, on one with a fault.

    Damaged records are skipped, since nothing is known of their content. The log states how many
    there were in each file.
    """
    damaged: collections.Counter[str] = collections.Counter()
    try:
        for example in examples:
            if example.is_damaged:
                damaged[example.place.file] += 1
                continue
            if example.fault:
                raise InputError(example.fault, example.place)
            yield example
    finally:
        for file, number in damaged.items():
            _tell_of_damage(file, number)


@functools.cache  # a set is read several times
def _tell_of_damage(file: str, number: int) -> None:
    logger.warning("%s: %s left out", file, counted(number, "damaged record"))


def in_order(items: Sequence[_Item], seed: int) -> list[_Item]:
    """The items in a random order that ``seed`` decides."""
    return random.Random(seed).sample(items, len(items))


def digest(rows: Iterable[Sequence]) -> str:
    """A fingerprint of rows of names and numbers: 64 hexadecimal digits."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row).encode() + b"\n")
    return found.hexdigest()


def names_by_label(examples: Iterable[Example]) -> tuple[str, ...] | None:
    """The class names of examples, as ``ExampleSet.class_names`` describes them."""
    labels: dict[str, int | None] = {}
    names: dict[int, str] = {}
    places: dict[str, Place] = {}
    for example in examples:
        name, label = example.class_name, example.label
        if not name:
            continue
        known = labels.setdefault(name, label)
        first = places.setdefault(name, example.place)
        if label is None:
            continue
        if known is None:
            labels[name] = label
        elif known != label:
            raise InputError(
                f"class {name} has the label {label}, but the label {known} at {first}",
                example.place,
            )
        other = names.setdefault(label, name)
        if other != name:
            raise InputError(
                f"label {label} is class {name}, but {other} at {places[other]}", example.place
            )
    if not names:
        return tuple(sorted(labels)) or None
    for name, label in labels.items():
        if label is None:
            raise InputError(
                f"class {name} has no label, but others have",
                places[name],
                "give every class a label, or none",
            )
    if set(names) != set(range(len(names))):
        return None
    return tuple(names[label] for label in range(len(names)))
