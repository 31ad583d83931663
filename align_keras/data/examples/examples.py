"""Images with captions or classes, from tables, Karpathy's files, folders, shards and TFDS."""

import dataclasses
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path

from align_keras.data import records
from align_keras.data.examples import packing, sources

_TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
_FLAG = "--data"


@dataclasses.dataclass(frozen=True)
class Example:
    """One image with what is known of it."""

    where: str
    """Its place in the data, for messages."""
    image_id: str
    """Of two examples with the same the second adds captions only."""
    load: Callable[[], bytes]
    """Reads the encoded image."""
    captions: tuple = ()
    """Strings."""
    label: int | None = None
    """The number of its class, where the data has one."""
    class_name: str = ""
    """The name of its class, where the data has one."""


@dataclasses.dataclass(frozen=True)
class ExampleSet:
    """Examples that can be read more than once, in an order that does not change."""

    read: Callable
    """Returns an iterator of ``Example``; as ``read(seed)`` of a set with classes, in another
    order."""
    class_names: tuple | None = None
    """In the order of the labels, where the data names them by itself."""

    def __iter__(self):
        return self.read()

    def shuffled(self, seed):
        """An iterator in an order that ``seed`` decides.

        Rows of tables and files of folders come in a random order, shards and TFDS's files whole.
        """
        return self.read(seed)


def _in_order(rows, seed):
    """The rows as they stand, or with a seed in an order that it decides."""
    return rows if seed is None else random.Random(seed).sample(rows, len(rows))


def open_examples(data, split="", images="", select=()):
    """Opens a data set.

    Args:
        data: ``tfds:NAME``; a table (``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``) as of
            ``prepare_data.py``, whose columns ``captions``, ``class_name`` and ``label`` are
            used; Karpathy's ``.json``; a folder with a folder of images for each class; or a
            quoted pattern of TFRecord shards.
        split: of TFDS, of Karpathy's file and of a table the rows whose column ``split`` is
            that; of a folder the one in it of that name. Empty: ``test``, or all rows of a
            table without that column, or the folder itself if it has none of that name.
        images: folder of the images; empty: the table's or Karpathy's own.
        select: only rows of a table with these values, as ``COLUMN=VALUE``.

    Returns:
        An ``ExampleSet``.

    Raises:
        FileNotFoundError, ValueError: one line that names the flag and the mend.
    """
    if str(data).startswith("tfds:"):
        from align_keras.data.examples.tfds_examples import open_tfds

        return open_tfds(str(data).removeprefix("tfds:"), split or "test")
    path = Path(data)
    if path.is_dir():
        if split and not (path / split).is_dir():
            raise FileNotFoundError(f"{_FLAG}: no folder {path / split} of the split {split}")
        has_test = (path / "test").is_dir()
        return _open_folder(path / (split or "test") if split or has_test else path)
    if path.suffix == ".json":
        return _open_karpathy(path, split or "test", images)
    if path.suffix in _TABLES:
        return _open_table(path, split, images, select)
    shards = records.find_shards(data, _FLAG)
    if split:
        # A probe must not be trained on what it is tested on.
        raise ValueError(f"{_FLAG}: shards have no split {split}; give a pattern of its own")
    return ExampleSet(functools.partial(_read_shards, shards))


def _open_table(path, split, images, select):
    if not path.is_file():
        raise FileNotFoundError(f"{_FLAG}: no file {path}")
    rows = [(where, row) for where, row in packing.read_table(path, _FLAG) if row is not None]
    if split or any("split" in row for _, row in rows):
        select = (*select, f"split={split or 'test'}")
    columns = sources.Columns(select=tuple(select))
    rows = [(where, row) for where, row in rows if columns.selects(row)]
    if not rows:
        raise ValueError(f"{_FLAG}: {path} has no row with {' and '.join(select) or 'anything'}")
    folder = packing.ImageFolder(images or path.parent)

    def read(seed=None):
        for where, row in _in_order(rows, seed):
            name, archive = row.get("image"), row.get("archive") or ""
            if not isinstance(name, str):
                raise ValueError(f"{_FLAG}: {path} {where}: no image column")
            label = row.get("label")
            yield Example(
                where=f"{path.name} {where} ({name})",
                image_id=f"{archive}/{name}",
                load=functools.partial(folder.read, name, archive),
                captions=tuple(text for text in packing.captions_of(row) if text),
                label=int(label) if str(label).isdigit() else None,
                class_name=str(row.get("class_name") or ""),
            )

    return ExampleSet(read, _names_by_label(row for _, row in rows))


def _names_by_label(rows):
    """A table's class names in the order of its labels, or sorted; None without names."""
    named = {}
    for row in rows:
        if name := row.get("class_name"):
            label = row.get("label")
            named[str(name)] = int(label) if str(label).isdigit() else None
    labels = set(named.values())
    if labels == set(range(len(named))):
        return tuple(sorted(named, key=named.get)) or None
    # Numbers with gaps belong to a list that is not here; names alone are sorted.
    return tuple(sorted(named)) if labels == {None} else None


def _open_karpathy(path, split, images):
    """``dataset_flickr30k.json`` or ``dataset_coco.json``."""
    if not path.is_file():
        raise FileNotFoundError(f"{_FLAG}: no file {path}")
    try:
        rows = [row for row in json.loads(path.read_bytes())["images"] if row["split"] == split]
        rows = [
            (
                str(Path(row.get("filepath", "")) / row["filename"]),
                tuple(sentence["raw"].strip() for sentence in row["sentences"]),
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{_FLAG}: {path} is no file of Karpathy's splits (images with split, filename and "
            "sentences)"
        ) from None
    if not rows:
        raise ValueError(f"{_FLAG}: {path} has no image of the split {split}")
    folder = packing.ImageFolder(images or path.parent)

    def read():
        for name, captions in rows:
            # Some copies keep all images in one folder.
            flat = not (folder.directory / name).is_file()
            file = Path(name).name if flat else name
            yield Example(name, name, functools.partial(folder.read, file), captions)

    return ExampleSet(read)


def _open_folder(path):
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir())
    files = [
        (label, file)
        for label, folder in enumerate(classes)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in _IMAGES
    ]
    if not files:
        raise ValueError(
            f"{_FLAG}: {path} has no folders of images, one a class; give such a folder, a table, "
            "a quoted pattern of shards or tfds:NAME"
        )

    def read(seed=None):
        for label, file in _in_order(files, seed):
            name = str(file.relative_to(path))
            yield Example(name, name, file.read_bytes, (), None, classes[label].name)

    return ExampleSet(read, tuple(folder.name for folder in classes))


def _read_shards(shards, seed=None):
    for shard in _in_order(shards, seed):
        for index, record in enumerate(records.read_frames(shard)):
            where = f"{shard} record {index}"
            if record is None:
                raise ValueError(f"{_FLAG}: {where} is corrupt; write the shard again")
            fields = records.parse_pair(record)
            texts = {
                name: value.decode("utf-8", "replace")
                for name, value in fields.items()
                if isinstance(value, bytes) and name != "jpg"
            }
            label = fields.get("label")
            yield Example(
                where=where,
                image_id=str(fields.get("image_id", where)),
                load=functools.partial(fields.get, "jpg", b""),
                captions=(texts["txt"],) if texts.get("txt", "").strip() else (),
                label=label if isinstance(label, int) else None,
                class_name=texts.get("class_name", ""),
            )
