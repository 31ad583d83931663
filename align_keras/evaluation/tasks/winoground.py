"""Winoground (Thrush et al., 2022): two images, and two captions with the same words reordered."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from align_keras import files, lazy, paths
from align_keras.data.examples.example import caption_fault
from align_keras.errors import InputError, MissingInputError, Place, concerning
from align_keras.evaluation.tasks.data import image_file, images_in
from align_keras.evaluation.tasks.result import Result, query_digest
from align_keras.paths import AnyPath
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.evaluation import embedding
else:
    embedding = lazy.Module("align_keras.evaluation.embedding")

_TABLE = "examples.jsonl"


@dataclasses.dataclass(frozen=True)
class Quartets:
    """Rows of two images and two captions; only rows whose images were found."""

    rows: list[tuple[str, str, str, str]]
    """``(name of image 0, name of image 1, caption 0, caption 1)``. Caption 0 belongs to image 0,
    caption 1 to image 1.
    """
    files: dict[str, AnyPath]
    """Image files by name, in the order of ``rows``."""
    num_rows: int
    """Number of all rows, including those whose images were not found."""


@dataclasses.dataclass(frozen=True)
class Winoground:
    """The fractions of rows in which captions, images or both are matched correctly."""

    kind: ClassVar[str] = "winoground"
    name: str = "winoground"
    data: str = ""
    """``examples.jsonl``, or the folder that contains it."""
    images: str = ""
    """The folder of the images; empty for ``images`` next to ``examples.jsonl``."""
    batch_size: int = 64

    def open(self) -> Quartets:
        """Reads the captions and locates the images; raises InputError if there are none."""
        with concerning("data"):
            table = find_table(self.data)
            rows = read_rows(table)
        with concerning("images"):
            folder = paths.path_of(self.images) if self.images else table.parent / "images"
            there = images_in(folder, (name for row in rows for name in row[:2]), "Winoground")
            own = [row for row in rows if row[0] in there and row[1] in there]
            if not own:
                raise MissingInputError("no row has both of its images", Place(str(folder)))
        names = dict.fromkeys(name for row in own for name in row[:2])
        return Quartets(own, {name: there[name] for name in names}, len(rows))

    def run(self, model: Any, data: Quartets, output: AnyPath) -> Result:
        """Embeds images and captions, and computes the scores."""
        with concerning("images"):
            images = embedding.embed_images(
                model.encode_images,
                map(image_file, data.files.values()),
                model.preprocessor,
                self.batch_size,
            )
        places = {name: place for place, name in enumerate(data.files)}
        of_row = np.array([[places[name] for name in row[:2]] for row in data.rows])
        texts = embedding.embed_texts(model, [text for row in data.rows for text in row[2:]])
        texts = texts.reshape(len(data.rows), 2, -1)
        hits = scores_of(np.einsum("rcd,rid->rci", texts, images[of_row]))
        return Result(
            "winoground",
            f"{self.name}: {len(data.rows):,} of {counted(data.num_rows, 'row')}",
            {name: float(np.mean(own)) for name, own in hits.items()},
            # Chance levels, for four scores in random order.
            {"text_score": 1 / 4, "image_score": 1 / 4, "group_score": 1 / 6},
            outcomes={**hits, "queries": query_digest(data.rows)},
        )


def scores_of(similarities: np.ndarray) -> dict[str, np.ndarray]:
    """Which rows are correct, by the three scores in sec. 4.1 of the paper; ties are wrong.

    Args:
        similarities: ``(rows, 2 captions, 2 images)``.

    Returns:
        Bools ``(rows,)``. ``text_score``: each image is nearer to its own caption than to the
        other.
        ``image_score``: each caption is nearer to its own image than to the other. ``group_score``:
            both.
    """
    (c0_i0, c0_i1), (c1_i0, c1_i1) = np.moveaxis(similarities, 0, -1)
    text = (c0_i0 > c1_i0) & (c1_i1 > c0_i1)
    image = (c0_i0 > c0_i1) & (c1_i1 > c1_i0)
    return {"text_score": text, "image_score": image, "group_score": text & image}


def find_table(data: str) -> AnyPath:
    """The path of ``examples.jsonl``: the path given, or in that folder or its ``data`` folder.

    Raises:
        InputError: if ``data`` is empty.
        MissingInputError: if the file does not exist.
    """
    if not data:
        raise InputError(f"give Winoground's {_TABLE}, or its folder")
    path = paths.path_of(data)
    for found in (path, path / _TABLE, path / "data" / _TABLE):
        if found.is_file():
            return found
    raise MissingInputError(f"no {_TABLE}", Place(data))


def read_rows(table: AnyPath) -> list[tuple[str, str, str, str]]:
    """The rows of ``examples.jsonl``, as in ``Quartets.rows``.

    Raises:
        InputError: if the file has another format.
    """
    rows = []
    with files.opened(table, "rb") as file:
        lines = file.read().splitlines()
    for number, line in enumerate(lines, 1):
        place = Place(str(table), f"line {number}")
        try:
            row = json.loads(line)
            names = tuple(row[f"image_{side}"] for side in (0, 1))
            texts = tuple(row[f"caption_{side}"] for side in (0, 1))
            if not all(isinstance(own, str) for own in names):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError("no row of Winoground", place, "download it again") from None
        if fault := next(filter(None, map(caption_fault, texts)), None):
            raise InputError(fault, place)
        rows.append((*names, *texts))
    if not rows:
        raise InputError("no row in the file", Place(str(table)))
    return rows
