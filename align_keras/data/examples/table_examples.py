"""A table of captions or classes with a folder of images or zip archives."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from align_keras import paths
from align_keras.data.examples import column_texts, image_files
from align_keras.data.examples.columns import SIZES, Columns, example_of, listing, no_name
from align_keras.data.examples.example import Example, is_absent
from align_keras.data.examples.example_set import ExampleSet, digest, in_order, usable
from align_keras.data.examples.tables import PARQUET_ROW, Row, RowFault, ending_of, read_table
from align_keras.errors import Place
from align_keras.paths import AnyPath


class TableExamples(ExampleSet):
    """The rows of a table, as one part.

    Each pass over the rows reads the table again, unless ``keep_rows`` was called.

    Args:
        table: path of a JSONL, CSV, TSV or Parquet file.
        images: folder of the images; empty: the folder of the table.
        columns: ``Columns``.
    """

    def __init__(
        self, table: str | AnyPath, images: str | AnyPath = "", columns: Columns | None = None
    ) -> None:
        self.columns = columns or Columns()
        self.parts = [str(table)]
        self.images_folder = str(images or paths.path_of(table).parent)
        self._rows: list[tuple[str, Row]] | None = None
        self._folder: image_files.ImageFolder | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the folder: each Beam worker opens the archives itself."""
        return {**self.__dict__, "_folder": None}

    def keep_rows(self) -> None:
        """Reads the table into memory; raises InputError if a row cannot be used."""
        self._rows = list(self._selected())
        for _ in usable(self._examples(self._rows)):
            pass

    def has_column(self, name: str) -> bool:
        """Whether any row has a column."""
        return any(isinstance(row, dict) and name in row for _, row in self._selected())

    def read(self, part: str) -> Iterator[Example]:
        """Yields the selected rows of the table."""
        return self._examples(self._selected())

    @functools.cached_property
    def text_columns(self) -> tuple[str, str] | None:
        """The image and caption columns, if the table holds nothing else that matters.

        This holds for a Parquet table with one caption column if both columns are text, and if
        nothing is selected, carried or marked unsafe. None means that each row must become an
        ``Example``.
        """
        columns = self.columns
        if columns.select or columns.carry or columns.unsafe or self._rows is not None:
            return None
        if ending_of(self.parts[0]) != ".parquet":
            return None
        types = column_texts.types_of(self.parts[0])
        found = [columns.image, *(name for name in columns.caption_names if name in types)]
        if len(set(found)) != 2 or {columns.archive, *SIZES} & types.keys():
            return None
        are_texts = all(types.get(name) in column_texts.TEXT_TYPES for name in found)
        return (found[0], found[1]) if are_texts else None

    def example_of_texts(self, number: int, image: object, caption: object) -> Example:
        """The ``Example`` of a row, given its values in ``text_columns``.

        Args:
            number: number of the row, from 0.
            image: path of the image as text, or None.
            caption: caption as text, or None.
        """
        row = dict(zip(self.text_columns or (), (image, caption), strict=True))
        self._folder = self._folder or image_files.ImageFolder(self.images_folder)
        return self.example(f"{PARQUET_ROW}{number + 1}", row, self._folder)

    def shuffled(self, seed: int) -> Iterator[Example]:
        """Yields the rows in an order that ``seed`` decides; keeps them in memory."""
        if self._rows is None:
            self.keep_rows()
        return self._examples(in_order(self._rows or [], seed))

    def _selected(self) -> Iterator[tuple[str, Row]]:
        rows = read_table(self.parts[0]) if self._rows is None else self._rows
        return ((where, row) for where, row in rows if self.columns.selects(row))

    def _examples(self, rows: Iterable[tuple[str, Row]]) -> Iterator[Example]:
        for where, fields in rows:
            # Opened after the table, whose folder it may be, so that a missing table is named
            # first. Kept, since it keeps archives open; reading their lists of members takes long.
            self._folder = self._folder or image_files.ImageFolder(self.images_folder)
            yield self.example(where, fields, self._folder)

    def example(self, where: str, row: Row, folder: image_files.ImageFolder) -> Example:
        """The ``Example`` of a row.

        Args:
            where: the row, such as ``line 3``.
            row: values by column, or the fault of the row.
            folder: folder of the images.
        """
        name, archive, fault = _image_of(row, self.columns)
        image_id = f"{archive}/{name}" if name and archive else name
        return example_of(
            None if isinstance(row, RowFault) else row,
            self.columns,
            place=Place(self.parts[0], where, name),
            key=where,
            image_id=image_id,
            load=functools.partial(folder.read, name, archive),
            fault=fault,
        )

    @property
    def fingerprint(self) -> str:
        """Derived from names, captions, and the sizes and times of files and archives."""
        rows: dict[tuple[str, str], str] = {}
        for _, row in self._selected():
            name, archive, _ = _image_of(row, self.columns)
            # A table may have one row per caption of an image.
            texts = () if isinstance(row, RowFault) else self.columns.texts_of(row)
            text = next((text for text in texts if text and isinstance(text, str)), "")
            rows.setdefault((archive, name), text)
        folder = paths.path_of(self.images_folder)
        state = functools.cache(lambda file: image_files.state(folder / file))
        return digest((*row, caption, *state(row[0] or row[1])) for row, caption in rows.items())


def _image_of(row: Row, columns: Columns) -> tuple[str, str, str | None]:
    """The image that a row names, its archive, and the fault or None."""
    if isinstance(row, RowFault):
        return "", "", row.reason
    archive = row.get(columns.archive)
    archive = archive if isinstance(archive, str) and archive.strip() else ""
    if columns.image not in row:
        return "", archive, no_name([columns.image], row)
    name = row[columns.image]
    if isinstance(name, str) and name.strip():
        return name, archive, None
    fault = f"{columns.image} is not text"
    if is_absent(name) or isinstance(name, str):
        fault = f"{columns.image} is empty"
    elif isinstance(name, dict):
        fault = f"{columns.image} is an object of {listing(name)}, not the path of an image"
    elif isinstance(name, bytes):
        fault = f"{columns.image} holds bytes, not the path of an image"
    return "", archive, fault
