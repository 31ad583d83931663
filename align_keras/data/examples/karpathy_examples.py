"""Karpathy's splits: ``dataset_flickr30k.json`` and ``dataset_coco.json``."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

from align_keras.data.examples import image_files
from align_keras.data.examples.example import Example
from align_keras.data.examples.example_set import ExampleSet, digest, in_order
from align_keras.errors import InputError, MissingInputError, Place


class KarpathyExamples(ExampleSet):
    """The images of a split, with five captions or more each; one part.

    Args:
        path: of the JSON file.
        images: the folder of the images; the file's own if empty.
        split: its images; empty for all.

    Raises:
        InputError: if it is not such a file, or has no image of the split.
    """

    def __init__(self, path: str | Path, images: str | Path = "", split: str = "") -> None:
        path = Path(path)
        if not path.is_file():
            raise MissingInputError(f"no file {path}", remedy="give a file of Karpathy's splits")
        self.parts = [str(path)]
        try:
            rows = json.loads(path.read_bytes())["images"]
            self._rows = [
                (
                    f"image {number}",
                    str(Path(row.get("filepath", "")) / row["filename"]),
                    tuple(sentence["raw"].strip() for sentence in row["sentences"]),
                )
                for number, row in enumerate(rows)
                if not split or row["split"] == split
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                "no file of Karpathy's splits (images with split, filename and sentences)",
                Place(str(path)),
            ) from None
        if not self._rows:
            raise InputError(f"{path} has no image of the split {split}")
        self._folder = image_files.ImageFolder(images or path.parent)

    def read(self, part: str) -> Iterator[Example]:
        """Yields the images of the split."""
        return map(self._example, self._rows)

    def shuffled(self, seed: int) -> Iterator[Example]:
        """The images in an order that ``seed`` decides."""
        return map(self._example, in_order(self._rows, seed))

    def _example(self, row: tuple[str, str, tuple[str, ...]]) -> Example:
        where, name, captions = row
        return Example(
            place=Place(self.parts[0], where, name),
            image_id=name,
            load=functools.partial(self._folder.read, self._file(name)),
            texts=captions,
            key=name,
        )

    def _file(self, name: str) -> str:
        """Where an image is: some copies keep all images in one folder."""
        return name if (self._folder.directory / name).is_file() else Path(name).name

    @property
    def fingerprint(self) -> str:
        """Of names and captions, and of the states of the files."""
        folder = self._folder.directory
        return digest(
            (name, *captions, *image_files.state(folder / self._file(name)))
            for _, name, captions in self._rows
        )
