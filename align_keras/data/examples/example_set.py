"""A set of examples, whatever keeps it: parts to read, an order to shuffle, classes, a count."""

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
# So many images are looked at before a model is loaded.
_FIRST_IMAGES = 1_000


class ExampleSet:
    """Examples that can be read more than once, in an order that does not change.

    A kind of source is a subclass: it sets ``parts`` and overrides ``read`` and ``fingerprint``,
    and whatever else it can tell without reading everything.

    Iterating raises InputError, with the place, on an example that cannot be used; damaged records
    are left out and counted in the log. ``read``, ``shuffled`` and ``images`` give all, with their
    ``fault``.
    """

    parts: list[str]
    """Names of what can be read independently, such as by the workers of Beam."""

    def read(self, part: str) -> Iterator[Example]:
        """Yields the examples of one of ``parts``, also those with a fault."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Example]:
        for part in self.parts:
            yield from usable(self.read(part))

    def shuffled(self, seed: int) -> Iterator[Example]:
        """Yields all examples, also those with a fault, in an order that ``seed`` decides.

        Rows of tables and files of folders come in a random order, shards whole.
        """
        for part in in_order(self.parts, seed):
            yield from self.read(part)

    def images(self) -> Iterator[Example]:
        """Each image once, with its first example; faulty images are included."""
        seen = set()
        for example in itertools.chain.from_iterable(map(self.read, self.parts)):
            if example.image_id not in seen:
                seen.add(example.image_id)
                yield example

    def check_captions(self) -> None:
        """Raises InputError if none of the first images has a caption, or one is not text."""
        # All captions, so that a faulty one is reported before a model is loaded.
        texts = [len(example.queries) for example in itertools.islice(self, _FIRST_IMAGES)]
        if any(texts):
            return
        first = next(iter(self), None)
        faults = [caption_fault(text) for text in first.texts] if first else []
        raise InputError(
            next(filter(None, faults), "no caption in it"),
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

        Names without labels are sorted. Labels with gaps belong to a list of names that the data
        does not hold: None.

        Raises:
            InputError: if a label has two names, or a name has two labels, or some names only.
        """
        return names_by_label(self)

    @functools.cached_property
    def count(self) -> int:
        """How many images there are, at most."""
        return sum(1 for _ in self.images())

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change if an image is added, removed, renamed or rewritten.

        Computed from names, sizes and modification times, not from the bytes of the images.
        """
        raise NotImplementedError


def usable(examples: Iterable[Example]) -> Iterator[Example]:
    """Passes examples on; raises InputError, with the place, on one with a fault.

    Of a damaged record nobody knows what it held: such records are left out, and the log says how
    many, by file.
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
    """The items in an order that a seed decides."""
    return random.Random(seed).sample(items, len(items))


def digest(rows: Iterable[Sequence]) -> str:
    """The fingerprint of rows of names and numbers: 64 hexadecimal digits."""
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
