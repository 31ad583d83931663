"""Sets of TensorFlow Datasets: ``tfds:coco_captions``, ``tfds:NAME@val``."""

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from align_keras import lazy
from align_keras.data import records, shard_names
from align_keras.data.examples.columns import Columns, example_of
from align_keras.data.examples.example import Example, as_id, as_label, decoded
from align_keras.data.examples.example_set import ExampleSet, digest
from align_keras.data.examples.tfds_builder import prepared_builder
from align_keras.errors import InputError, Place

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy.Module("tensorflow")

_ID_FIELDS = ("image/filename", "filename", "image/id", "image_id", "id", "url")


class TFDSExamples(ExampleSet):
    """One split of a TFDS set; its shards are the parts.

    Args:
        name: ``tfds:NAME`` with a name for ``tfds.builder``, or ``tfds:FOLDER`` with the folder of
            a prepared set. ``@SPLIT`` after either names a split.
        split: the split if ``name`` does not name one; empty for ``train``.
        columns: the field for each kind of content; by default ``Columns()``.

    Raises:
        InputError: if tensorflow-datasets is missing; if it has no such set or split, or cannot
            prepare the set; or if the set has no image. ``setting`` is ``split`` if the split is
            wrong.
    """

    def __init__(self, name: str, split: str = "", columns: Columns | None = None) -> None:
        self.columns = columns or Columns()
        self._name, _, own = name.removeprefix("tfds:").partition("@")
        self.split = self._split = own or split or "train"
        info = prepared_builder(self._name).info
        if self._split not in info.splits:
            known = ", ".join(info.splits)
            raise InputError(
                f"tfds:{self._name} has no split {self._split!r}",
                remedy=f"it has {known}",
                setting="split" if split and not own else "",
            )
        if "image" not in info.features:
            raise InputError(f"tfds:{self._name} has no image, only {', '.join(info.features)}")
        label = dict(info.features.items()).get("label")
        names = getattr(label, "names", None)
        self._names = tuple(name.replace("_", " ") for name in names) if names else None
        self._count = int(info.splits[self._split].num_examples)
        self._version = str(info.version)
        self.parts = [
            f"{self._split}[{shard}shard]" for shard in range(info.splits[self._split].num_shards)
        ]

    def read(self, part: str) -> Iterator[Example]:
        """Yields the examples of a shard of the split, keyed by their place in the shard."""
        for index, example in enumerate(_read_shard(prepared_builder(self._name), part)):
            fields, found = _flat(example), tuple(example)
            jpg = fields.pop("image", b"")
            key = f"{part} record {index}"
            ids = (as_id(fields.get(name)) for name in _ID_FIELDS)
            label = as_label(fields.get("label"))
            if self._names and label is not None:
                fields.setdefault("class_name", self._names[label])
            if not self.columns.selects(fields):
                continue
            yield example_of(
                fields,
                self.columns,
                place=Place(f"tfds:{self._name}", key),
                key=key,
                image_id=next(filter(None, ids), key),
                load=functools.partial(bytes, jpg),
                fault=None if example else shard_names.CORRUPT,
                found=found,
                noun="field",
            )

    @functools.cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the set's labels."""
        return self._names

    @property
    def count(self) -> int:
        """The number of examples in the split."""
        return self._count

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the set's name, version and split."""
        return digest([(os.path.basename(self._name), self._version, self._split, self._count)])


def _read_shard(builder: Any, part: str) -> Iterator[dict]:
    """Yields the records of a shard, with images still encoded; ``{}`` for each corrupt record.

    TFDS's own reader stops at the first flipped byte. TensorFlow's parser, which TFDS uses, ends
    the process on some malformed records, so each record is first parsed and rewritten by protobuf.
    """
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        yield from tfds.as_numpy(builder.as_dataset(split=part, decoders=decoders))
        return

    @functools.partial(tf.function, input_signature=[tf.TensorSpec([], tf.string)])
    def parse(record: "tf.Tensor") -> Any:
        return builder.info.features.deserialize_example(record, decoders=decoders)

    for shard in builder.info.splits[part].file_instructions:
        for record in records.read_records(shard.filename, shard.take, skip=shard.skip):
            try:
                sound = records.parse_example(record).SerializeToString()
                yield tfds.as_numpy(parse(sound)) if record else {}
            except (ValueError, tf.errors.OpError):
                yield {}


def _flat(example: dict) -> dict:
    """The fields of an example as text and numbers. Captions lose their ids and boxes."""
    fields = {}
    for name, value in example.items():
        if isinstance(value, dict):
            value = next((value[key] for key in ("text", "caption", "raw") if key in value), None)
        if name == "image":
            fields[name] = value
        elif hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1:
            fields[name] = [decoded(item) for item in value.tolist()]
        elif value is not None and getattr(value, "ndim", 0) == 0:
            fields[name] = decoded(value.item() if hasattr(value, "item") else value)
    return fields
