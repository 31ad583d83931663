"""TFRecord shards, written by this package or by img2dataset."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from align_keras.data import records, shard_names
from align_keras.data.examples.columns import PACKED, Columns, example_of, no_name
from align_keras.data.examples.example import Example, as_id, decoded
from align_keras.data.examples.example_set import ExampleSet, digest
from align_keras.data.examples.image_files import no_image, state
from align_keras.errors import Place


class Entry(NamedTuple):
    """A record of a shard of any format."""

    fields: dict[str, Any]
    """Values by field name, without the image."""
    load: Callable[[], bytes]
    """Reads the encoded image."""
    fault: str | None = None
    """Why the record cannot be used; None if it can."""
    found: tuple[str, ...] = ()
    """Names of the record's members."""


class ShardExamples(ExampleSet):
    """The records of files, each file a part. Each format is a subclass with its own ``_entries``.

    Args:
        files: paths of the files.
        columns: the field for each kind of content; by default the fields that training reads.
    """

    default_columns = PACKED

    def __init__(self, files: Sequence[str], columns: Columns | None = None) -> None:
        self.columns = columns or self.default_columns
        self.parts = list(files)
        folders = [os.path.dirname(path) for path in files]
        is_mixed = len({os.path.isabs(path) for path in files}) > 1
        self._root = "" if is_mixed else os.path.commonpath(folders)

    def read(self, part: str) -> Iterator[Example]:
        """Yields the selected records of one file."""
        name = os.path.relpath(part, self._root)
        for index, (fields, load, fault, found) in enumerate(self._entries(part)):
            if not self.columns.selects(fields):
                continue
            # The URL identifies an image across downloads; keys restart in each download.
            ids = (as_id(fields.get(field)) for field in self.columns.image_id)
            key = f"{name} record {index}"
            image_id = next(filter(None, ids), key)
            place = Place(part, f"record {index}")
            yield example_of(
                fields, self.columns, place, key, image_id, load, fault, found, "field"
            )

    def _entries(self, part: str) -> Iterator[Entry]:
        """Yields each record of a file; raises InputError if the file has another format."""
        for index, record in enumerate(records.read_frames(part)):
            if record is None and index == 0:
                # A file that has been deleted yields one corrupt record.
                with contextlib.suppress(OSError):
                    records.check_kind(part)
            try:
                if record is None:
                    raise ValueError(shard_names.CORRUPT)
                fields = records.parse_pair(record)
            except ValueError as error:
                yield Entry({}, no_image(), str(error))
                continue
            found = tuple(sorted(fields))
            jpg = fields.pop("jpg", None)
            load = (lambda jpg=jpg: jpg) if jpg else no_image(no_name(["jpg"], found, "field"))
            yield Entry({n: decoded(value) for n, value in fields.items()}, load, None, found)

    @property
    def count(self) -> int:
        """The number of records; several may share an image."""
        return sum(records.count_records(shard) for shard in self.parts)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the files' names, sizes and modification times."""
        return digest((os.path.basename(shard), *state(shard)) for shard in self.parts)
