"""Where raw pairs come from: tables beside images, img2dataset's output, TFDS.

A source has ``parts``, names of what can be read independently, and ``rows(part)``, which yields
a ``Row`` for each image in an order that does not change. An image's bytes are read where
``Row.load`` is called, so that rules of the table decode and mostly read none.
"""

import dataclasses
import functools
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from align_keras.data import packing, records

_IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


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


def _missing():
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
        columns, load, image_id, fault = self.columns, _missing, "", None
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


class ShardSource:
    """What img2dataset wrote, in any of its formats; a format a subclass.

    Args:
        files: paths of the shards.
        columns: ``Columns``.
    """

    def __init__(self, files, columns=None):
        self.columns = columns or Columns()
        self.parts = list(files)
        self._root = os.path.commonpath([os.path.dirname(path) for path in files])

    def rows(self, part):
        """The rows of one shard."""
        name = os.path.relpath(part, self._root)
        for index, (fields, load, fault) in enumerate(self._read(part)):
            fields = fields or {}
            # The URL tells images apart across downloads; keys begin anew in each.
            image_id = fields.get("image_id") or fields.get("url") or fields.get("key")
            where = f"{name} record {index}"
            row = make_row(where, fields, load, str(image_id or where), self.columns, fault)
            if row is not None:
                yield row


class TFRecordSource(ShardSource):
    """``--output_format=tfrecord``, and this package's own shards."""

    def _read(self, part):
        for record in records.read_frames(part):
            try:
                if record is None:
                    raise ValueError("corrupt record")
                fields = records.parse_pair(record)
            except ValueError as error:
                yield {}, _missing, str(error)
                continue
            jpg = fields.pop("jpg", None)
            fields = {name: _decoded(value) for name, value in fields.items()}
            yield fields, (lambda jpg=jpg: jpg) if jpg else _missing, None


def _decoded(value):
    """Bytes as text; those that are not UTF-8 stay bytes, which no caption is."""
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


class TarSource(ShardSource):
    """``--output_format=webdataset``: files of one stem are a pair."""

    def _read(self, part):
        try:
            with (
                tf.io.gfile.GFile(part, "rb") as file,
                tarfile.open(fileobj=file, mode="r:") as archive,
            ):
                group, stem = {}, None
                for member in archive:
                    name, _, extension = member.name.partition(".")
                    if name != stem and group:
                        yield self._pair(part, archive, group)
                        group = {}
                    stem = name
                    group["." + extension.lower()] = member
                if group:
                    yield self._pair(part, archive, group)
        except (tarfile.TarError, EOFError, OSError, tf.errors.OpError) as error:
            raise ValueError(
                f"--source: {part} is not readable as a tar file ({error}); remove it or "
                "download it again"
            ) from None

    def _pair(self, part, archive, group):
        def read(extension):
            member = group.get(extension)
            return archive.extractfile(member).read() if member else None

        fields, fault = {}, None
        try:
            fields = json.loads(read(".json") or "{}")
        except ValueError:
            fault = "not a JSON object"
        if (text := read(".txt")) is not None:
            fields["txt"] = _decoded(text)
        image = next((extension for extension in _IMAGE_EXTENSIONS if extension in group), None)
        load = functools.partial(_read_member, part, group[image]) if image else _missing
        return fields, load, fault


def _read_member(part, member):
    """The bytes of a member of a tar file that may be closed by now."""
    with tf.io.gfile.GFile(part, "rb") as file:
        file.seek(member.offset_data)
        return file.read(member.size)


class ParquetSource(ShardSource):
    """``--output_format=parquet`` (images within) and ``files`` (in folders beside)."""

    def _read(self, part):
        folder = Path(part).with_suffix("")
        for _, fields in packing.read_table(part, "--source"):
            status = fields.get("status", "success")
            jpg = fields.pop("jpg", None)
            path = folder / f"{fields.get('key')}.jpg"
            if status != "success":
                yield fields, _missing, "not downloaded"
            elif jpg:
                yield fields, lambda jpg=jpg: jpg, None
            else:
                yield fields, path.read_bytes, None


def open_source(source, columns=None):
    """Opens a source by its name.

    Args:
        source: ``tfds:NAME``, a folder that img2dataset wrote, or a pattern of its shards
            (``.tfrecord``, ``.tar`` or ``.parquet``).
        columns: ``Columns``.

    Raises:
        FileNotFoundError, ValueError: one line that names the flag and the mend.
    """
    if source.startswith("tfds:"):
        from align_keras.data.tfds_source import TFDSSource

        return TFDSSource(source, columns)
    kinds = {".tfrecord": TFRecordSource, ".tar": TarSource, ".parquet": ParquetSource}
    patterns = [source]
    if tf.io.gfile.isdir(source):
        patterns = [f"{source}/*{extension}*" for extension in kinds]
    for pattern in patterns:
        files = [path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path)]
        # A run that was cut leaves a partial file; statistics stand beside each shard.
        files = [path for path in files if not path.endswith((".partial", ".json"))]
        for extension, kind in kinds.items():
            if files and all(extension in os.path.basename(path) for path in files):
                return kind(sorted(files), columns)
    raise FileNotFoundError(
        f"--source: {source} is neither tfds:NAME nor a folder or quoted pattern of .tfrecord, "
        ".tar or .parquet files that img2dataset wrote"
    )


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
