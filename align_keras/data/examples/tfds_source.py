"""Image-caption sets of TensorFlow Datasets: ``tfds:coco_captions``, ``tfds:NAME@val``.

A set without an image or a caption, or one that TFDS cannot prepare, ends in one line.
"""

from pathlib import Path

from align_keras.data.examples import packing, sources
from align_keras.data.examples.tfds_builder import prepared_builder
from align_keras.data.preparation import filters, single_machine
from align_keras.data.preparation.judging import Preparation

_SHARD_SIZE = 4_096
_ID_FIELDS = ("image/filename", "filename", "image/id", "image_id", "id", "url")


class TFDSSource:
    """The pairs of one split of a TFDS set.

    Args:
        name: ``tfds:NAME``, as ``tfds.builder`` takes it, or ``tfds:FOLDER`` of a set that was
            prepared there; ``@SPLIT`` behind it for another split than ``train``.
        columns: ``sources.Columns``.

    Raises:
        ValueError: if tensorflow-datasets is missing, or has no such set or split, or cannot
            prepare it, or the set has no image. One line.
    """

    def __init__(self, name, columns=None):
        self.columns = columns or sources.Columns()
        self._name, _, split = name.removeprefix("tfds:").partition("@")
        self._split = split or "train"
        info = prepared_builder(self._name).info
        if self._split not in info.splits:
            known = ", ".join(info.splits)
            raise ValueError(f"{name}: there is no split {self._split!r}; it has {known}")
        if "image" not in info.features:
            raise ValueError(f"{name}: it has no image, only {', '.join(info.features)}")
        self.parts = [
            f"{self._split}[{shard}shard]" for shard in range(info.splits[self._split].num_shards)
        ]

    def rows(self, part):
        """The rows of a shard of the split."""
        import tensorflow_datasets as tfds

        builder = prepared_builder(self._name)
        # Images stay encoded.
        dataset = builder.as_dataset(
            split=part, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
        )
        for index, example in enumerate(tfds.as_numpy(dataset)):
            fields = _flat(example)
            jpg = fields.pop("image")
            where = f"{part} record {index}"
            image_id = next((fields[name] for name in _ID_FIELDS if name in fields), where)
            row = sources.make_row(where, fields, lambda jpg=jpg: jpg, str(image_id), self.columns)
            if row is not None:
                yield row


def _flat(example):
    """Fields of an example as text and numbers; of captions with ids and boxes the texts."""
    fields = {}
    for name, value in example.items():
        if isinstance(value, dict):
            value = next((value[key] for key in ("text", "caption", "raw") if key in value), None)
        if name == "image":
            fields[name] = value
        elif hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1:
            fields[name] = [_text(item) for item in value.tolist()]
        elif value is not None and getattr(value, "ndim", 0) == 0:
            fields[name] = _text(value.item() if hasattr(value, "item") else value)
    return fields


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def training_shards(name, directory, seed=0):
    """Packs a TFDS set for training, unless that is done; without any rule.

    Args:
        name: as of ``TFDSSource``.
        directory: where the shards go.
        seed: decides the order of the records.

    Returns:
        A pattern of the shards.

    Raises:
        ValueError: as ``TFDSSource``, or if no pair of the set can be used.
    """
    stem = "".join(c if c.isalnum() else "_" for c in name.removeprefix("tfds:"))
    output = Path(directory) / stem
    finished = Path(f"{output}.finished")
    if not finished.exists():
        print(f"packing {name} into {directory}", flush=True)
        source = TFDSSource(name)
        single_machine.remove_shards(output)
        preparation = Preparation(source, filters.NO_RULES, seed)
        report = single_machine.prepare(preparation, str(output), _SHARD_SIZE)
        if not report["pairs_out"]:
            reasons = ", ".join(report["reasons"])
            raise ValueError(
                f"{name}: no pair of it can be used ({reasons}); "
                f"captions are looked for in {', '.join(packing.CAPTION_COLUMNS)}"
            )
        finished.touch()
    return f"{output}-*.tfrecord"
