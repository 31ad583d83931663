"""img2dataset's formats beside TFRecord: tar (webdataset), Parquet, and files beside Parquet."""

import functools
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from align_keras.data.examples.columns import Columns, no_image
from align_keras.data.examples.image_files import IMAGE_SUFFIXES, read_file
from align_keras.data.examples.shard_examples import ShardExamples, decoded
from align_keras.data.examples.tables import read_table
from align_keras.errors import InputError, Place


class TarExamples(ShardExamples):
    """img2dataset's format ``webdataset``: files of one stem are a pair."""

    default_columns = Columns()

    def _entries(self, part: str) -> Iterator[tuple]:
        try:
            with (
                tf.io.gfile.GFile(part, "rb") as file,
                tarfile.open(fileobj=file, mode="r:") as archive,
            ):
                for group in _groups(archive):
                    yield _pair(part, archive, group)
        except (tarfile.TarError, EOFError, OSError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"not readable as a tar file ({reason})",
                Place(part),
                "remove it or download it again",
            ) from None

    @functools.cached_property
    def count(self) -> int:
        """How many pairs there are."""
        return sum(1 for part in self.parts for _ in self._entries(part))


def _groups(archive: tarfile.TarFile) -> Iterator[dict[str, tarfile.TarInfo]]:
    """Neighbouring members of one stem, by their extensions."""
    group: dict[str, tarfile.TarInfo] = {}
    stem = None
    for member in archive:
        folder, base = os.path.split(member.name)
        base, _, extension = base.partition(".")
        name = os.path.join(folder, base)
        if name != stem and group:
            yield group
            group = {}
        stem = name
        group["." + extension.lower()] = member
    if group:
        yield group


def _pair(part: str, archive: tarfile.TarFile, group: dict[str, tarfile.TarInfo]) -> tuple:
    def read(extension):
        member = group.get(extension)
        return archive.extractfile(member).read() if member else None

    fields, fault = {}, None
    try:
        fields = dict(json.loads(read(".json") or "{}"))
    except (ValueError, TypeError):
        fault = "not a JSON object"
    if (text := read(".txt")) is not None:
        fields["txt"] = decoded(text)
    image = next((extension for extension in IMAGE_SUFFIXES if extension in group), None)
    load = functools.partial(_read_member, part, group[image]) if image else no_image
    return fields, load, fault


def _read_member(part: str, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member of a tar file that may be closed by now."""
    with tf.io.gfile.GFile(part, "rb") as file:
        file.seek(member.offset_data)
        return file.read(member.size)


class ParquetExamples(ShardExamples):
    """img2dataset's formats ``parquet`` (images within) and ``files`` (in folders beside)."""

    default_columns = Columns()

    def _entries(self, part: str) -> Iterator[tuple]:
        folder = Path(part).with_suffix("")
        for _, row in read_table(part):
            fields = row or {}
            status = fields.get("status", "success")
            jpg = fields.pop("jpg", None)
            path = folder / f"{fields.get('key')}.jpg"
            if status != "success":
                yield fields, no_image, "not downloaded"
            elif jpg:
                yield fields, lambda jpg=jpg: jpg, None
            else:
                yield fields, functools.partial(read_file, path), None

    @functools.cached_property
    def count(self) -> int:
        """How many rows there are."""
        return sum(1 for part in self.parts for _ in self._entries(part))
