"""Where raw pairs come from: tables beside images, img2dataset's output, TFDS.

A source has ``parts``, names of what can be read independently, and ``rows(part)``, which yields
a ``Row`` for each image in an order that does not change. An image's bytes are read where
``Row.load`` is called, so that rules of the table decode and mostly read none.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from align_keras.data.examples import packing


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns or fields of a source hold what."""

    image: str = "image"
    """Path of the image; of tables alone."""
    archive: str = "archive"
    """Name of a zip beside the images that holds it; of tables alone, may be absent."""
    caption: str = ""
    """The caption or a list of them; empty: the first there is of ``packing.CAPTION_COLUMNS``."""
    unsafe: str = ""
    """What marks unsafe content; empty: nothing does."""
    carry: tuple[str, ...] = ()
    """What is copied into the records, as ``COLUMN`` or ``FIELD=COLUMN``."""
    select: tuple[str, ...] = ()
    """Only rows with these values are read, as ``COLUMN=VALUE``."""

    @functools.cached_property
    def carried(self):
        """The column of each carried field."""
        return packing.carried_columns(self.carry)

    def selects(self, row):
        """Whether a row has every selected value; one that is no object stays, to be counted."""
        for condition in self.select:
            column, equals, value = condition.partition("=")
            if not equals:
                raise ValueError(f"--select: {condition!r} must be COLUMN=VALUE")
            if row is not None and str(row.get(column)) != value:
                return False
        return True


@dataclasses.dataclass(frozen=True)
class Row:
    """One image with its captions, as a source gives it."""

    where: str
    """Its place in the source; no two rows share one."""
    image_id: str
    captions: list
    """Strings; None or another type where a caption is missing."""
    load: Callable[[], bytes]
    """Reads the encoded image; raises what ``packing.UNREADABLE`` names."""
    size: tuple[int, int] | None = None
    """Width and height on the web, where the source names them: the file may be a smaller copy."""
    unsafe: object = None
    carried: dict = dataclasses.field(default_factory=dict)
    fault: str | None = None
    """Why the row cannot be used."""


def make_row(where, fields, load, image_id, columns, fault=None):
    """A ``Row`` from a dict of fields; None where the row is not selected."""
    if not columns.selects(fields):
        return None
    fields = fields if isinstance(fields, dict) else {}
    size = fields.get("original_width"), fields.get("original_height")
    values = {field: fields.get(column) for field, column in columns.carried.items()}
    return Row(
        where=where,
        image_id=image_id,
        captions=packing.captions_of(fields, columns.caption or None),
        load=load,
        size=size if all(isinstance(side, int) and side > 0 for side in size) else None,
        unsafe=fields.get(columns.unsafe) if columns.unsafe else None,
        carried={field: value for field, value in values.items() if value is not None},
        fault=fault,
    )


def no_image():
    """The ``load`` of a row without an image."""
    raise FileNotFoundError


class TableSource:
    """A table of captions beside a folder of images.

    Args:
        table: path of a JSONL, CSV, TSV or Parquet file.
        images: the folder; the table's own if empty.
        columns: ``Columns``.
    """

    def __init__(self, table, images="", columns=None):
        self.columns = columns or Columns()
        self.parts = [str(table)]
        self.images = str(images or Path(table).parent)

    def rows(self, part):
        """The rows of the table."""
        folder = None
        for where, fields in packing.read_table(part):
            # After the table, whose folder it may be: a message names what is missing first.
            folder = folder or packing.ImageFolder(self.images)
            if (row := self.row(where, fields, folder)) is not None:
                yield row

    def row(self, where, fields, folder):
        """A ``Row`` from one of the table; None if it is not selected."""
        columns, load, image_id, fault = self.columns, no_image, "", None
        name = fields.get(columns.image) if fields else None
        if not fields:
            fault = "not a JSON object"
        elif name is None or name == "":
            fault = f"no {columns.image} column"
        elif not isinstance(name, str):
            fault = f"{columns.image} column is no text"
        else:
            archive = fields.get(columns.archive)
            archive = archive if isinstance(archive, str) and archive else None
            image_id = f"{archive}/{name}" if archive else name

            def load():
                return folder.read(name, archive)

        return make_row(where, fields, load, image_id, columns, fault)


def open_source(source, columns=None):
    """Opens a source by its name.

    Args:
        source: ``tfds:NAME``, a folder that img2dataset wrote, or a pattern of its shards
            (``.tfrecord``, ``.tar`` or ``.parquet``).
        columns: ``Columns``.

    Raises:
        FileNotFoundError, ValueError: one line that names the flag and the mend.
    """
    # Each builds on this module.
    if source.startswith("tfds:"):
        from align_keras.data.examples.tfds_source import TFDSSource

        return TFDSSource(source, columns)
    from align_keras.data.examples import img2dataset_source

    return img2dataset_source.open_shards(source, columns)


def check_rows(source, name):
    """Looks for a first row and for the carried columns, no further than need be.

    Args:
        source: an opened source.
        name: what the user called it, with its flag.

    Raises:
        ValueError: if no row is there or selected, or none has a carried column.
    """
    missing = source.columns.carried
    rows = (row for part in source.parts for row in source.rows(part))
    row = next(rows, None)
    if row is None:
        taken = " that --select takes" if source.columns.select else ""
        raise ValueError(f"{name}: it has no row{taken}")
    while row is not None and missing:
        missing = {field: column for field, column in missing.items() if field not in row.carried}
        row = next(rows, None) if missing else row
    for column in missing.values():
        raise ValueError(f"--carry: no row of {name.partition('=')[2]} has a column {column}")
