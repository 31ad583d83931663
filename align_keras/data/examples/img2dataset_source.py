"""What img2dataset writes, in any of its formats, as a source of raw pairs."""

import functools
import json
import os
import tarfile
from pathlib import Path

import tensorflow as tf

from align_keras.data import records
from align_keras.data.examples import packing
from align_keras.data.examples.sources import Columns, make_row, no_image

_IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


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
                yield {}, no_image, str(error)
                continue
            jpg = fields.pop("jpg", None)
            fields = {name: _decoded(value) for name, value in fields.items()}
            yield fields, (lambda jpg=jpg: jpg) if jpg else no_image, None


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
                    folder, base = os.path.split(member.name)
                    base, _, extension = base.partition(".")
                    name = os.path.join(folder, base)
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
            fields = dict(json.loads(read(".json") or "{}"))
        except (ValueError, TypeError):
            fault = "not a JSON object"
        if (text := read(".txt")) is not None:
            fields["txt"] = _decoded(text)
        image = next((extension for extension in _IMAGE_EXTENSIONS if extension in group), None)
        load = functools.partial(_read_member, part, group[image]) if image else no_image
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
                yield fields, no_image, "not downloaded"
            elif jpg:
                yield fields, lambda jpg=jpg: jpg, None
            else:
                yield fields, path.read_bytes, None


def open_shards(source, columns=None):
    """The source of a folder or pattern of shards, by their extension; as ``open_source``."""
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
