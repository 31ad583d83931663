"""Karpathy's splits: ``dataset_flickr30k.json`` and ``dataset_coco.json``."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align_keras import paths
from align_keras.data import file_kinds
from align_keras.data.examples import image_files
from align_keras.data.examples.columns import listing
from align_keras.data.examples.example import Example, storable
from align_keras.data.examples.example_set import ExampleSet, digest, in_order
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.paths import AnyPath


class KarpathyExamples(ExampleSet):
    """The images of a split, usually with five captions each; one part.

    Args:
        path: path of the JSON file.
        images: folder of the images; empty: the folder of the JSON file.
        split: name of the split; empty for all images.

    Raises:
        InputError: if the file has another format, or no image of the split.
    """

    def __init__(self, path: str | AnyPath, images: str | AnyPath = "", split: str = "") -> None:
        path = paths.path_of(path)
        if not path.is_file():
            raise MissingInputError(f"no file {path}", remedy="give a file of Karpathy's splits")
        self.parts, self.split = [str(path)], split
        place = Place(str(path))
        rows = _images_in(path)
        parsed = [_parse(row, number, place) for number, row in enumerate(rows)]
        self._rows = [row[1:] for row in parsed if not split or row[0] == split]
        if not self._rows:
            splits = ", ".join(sorted({row[0] for row in parsed})) or "none"
            raise InputError(f"{path} has no image of the split {split}", remedy=f"it has {splits}")
        self._folder = image_files.ImageFolder(images or path.parent)

    def read(self, part: str) -> Iterator[Example]:
        """Yields the images of the split."""
        return map(self._example, self._rows)

    def shuffled(self, seed: int) -> Iterator[Example]:
        """The images in an order that ``seed`` decides."""
        return map(self._example, in_order(self._rows, seed))

    def _example(self, row: tuple[str, str, tuple[object, ...]]) -> Example:
        where, name, captions = row
        return Example(
            place=Place(self.parts[0], where, name),
            image_id=storable(name),
            load=functools.partial(self._folder.read, self._file(name)),
            texts=captions,
            key=name,
        )

    def _file(self, name: str) -> str:
        """Path of an image; some copies of the data keep all images in one folder."""
        return name if (self._folder.directory / name).is_file() else Path(name).name

    @property
    def fingerprint(self) -> str:
        """Derived from names, captions, and the sizes and modification times of the files."""
        folder = self._folder.directory
        return digest(
            (name, *captions, *image_files.state(folder / self._file(name)))
            for _, name, captions in self._rows
        )


def _images_in(path: AnyPath) -> list:
    """The list of images in the file."""
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        table = None
    rows = table.get("images") if isinstance(table, dict) else None
    if isinstance(rows, list) and any(isinstance(row, dict) and "sentences" in row for row in rows):
        return rows
    kind = file_kinds.kind_of(file_kinds.head_of(path))
    found, remedy = "", kind.remedy if kind else ""
    if isinstance(table, dict):
        found = f", but an object of {listing(table)}"
    elif table is None and kind is file_kinds.JSON_LINES:
        remedy = "if it has one object per line, give it the ending .jsonl"
    raise InputError(
        f"no file of Karpathy's splits (images with split, filename and sentences){found}",
        Place(str(path)),
        remedy,
    )


def _parse(row: Any, number: int, place: Place) -> tuple[str, str, str, tuple[object, ...]]:
    """Split, place, name and captions of an image."""
    where = f"image {number}"
    try:
        captions = tuple(sentence["raw"] for sentence in row["sentences"])
        name = str(Path(row.get("filepath", "")) / row["filename"])
        return str(row.get("split", "")), where, name, tuple(map(_stripped, captions))
    except (KeyError, TypeError, AttributeError):
        found = listing(row) if isinstance(row, dict) else "no object"
        raise InputError(
            f"needs filename and sentences with raw, has {found}",
            dataclasses.replace(place, row=where),
        ) from None


def _stripped(caption: object) -> object:
    return caption.strip() if isinstance(caption, str) else caption
