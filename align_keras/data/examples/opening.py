"""Opens a data set of any kind by its name."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

from align_keras import errors, paths
from align_keras.data import records
from align_keras.data.examples.columns import Columns, listing
from align_keras.data.examples.example_set import ExampleSet
from align_keras.data.examples.folder_examples import FolderExamples
from align_keras.data.examples.image_files import IMAGE_SUFFIXES, ImageFolder
from align_keras.data.examples.img2dataset_examples import (
    TAR_SUFFIXES,
    ParquetExamples,
    TarExamples,
)
from align_keras.data.examples.karpathy_examples import KarpathyExamples
from align_keras.data.examples.shard_examples import ShardExamples
from align_keras.data.examples.table_columns import check_columns, values_of
from align_keras.data.examples.table_examples import TableExamples
from align_keras.data.examples.tables import ending_of
from align_keras.data.matching import matching_files
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.paths import AnyPath
from align_keras.wording import listed

_KINDS = "a table, a quoted pattern of shards or tfds:NAME"


def open_examples(
    data: str | AnyPath,
    split: str = "",
    images: str | AnyPath = "",
    select: Sequence[str] = (),
    *,
    default_split: str = "test",
    folders: Literal["classes", "images"] = "classes",
) -> ExampleSet:
    """Opens a data set.

    Args:
        data: ``tfds:NAME``; a table with the columns ``image``, ``archive``, ``captions``,
            ``class_name`` and ``label``, of which only ``image`` is required (``.jsonl``, ``.csv``
            and ``.tsv``, also with ``.gz``, or ``.parquet``); Karpathy's ``.json``; a folder of
            images; or a quoted pattern of TFRecord or tar shards.
        split: a split of TFDS or of Karpathy's file; in a table, a value of the column ``split``;
            in a folder, the name of a subfolder.
        images: folder of the images; empty: the folder of the table or of Karpathy's file.
        select: only rows of a table with these values, given as ``COLUMN=VALUE``.
        default_split: the split to use if the data has splits and ``split`` is empty. If both are
            empty, all splits are used, but only ``train`` of a TFDS set.
        folders: whether a folder has one subfolder per class, or images at any depth.

    Returns:
        An ``ExampleSet``.

    Raises:
        InputError: if the data, split or row does not exist, or a row of a table cannot be used.
    """
    columns = Columns(select=tuple(select))
    if str(data).startswith("tfds:"):
        # TFDS takes seconds to import, and may be missing.
        from align_keras.data.examples.tfds_examples import TFDSExamples

        return TFDSExamples(str(data), split or default_split, columns)
    paths.check_scheme(data, remote=True)
    path = paths.path_of(data)
    if ending_of(path) and not path.is_dir():
        return _open_table(path, split, images, columns, default_split)
    if select:
        raise InputError(
            f"{data} is not a table, so it has no rows to select", remedy="leave out <select>"
        )
    if path.is_dir():
        return _open_folder(path, split, default_split, folders)
    if path.suffix.lower() == ".json":
        return KarpathyExamples(path, images, split or default_split)
    files = _find_shards(data)
    if split:
        # A linear probe must not be trained on its test data.
        raise InputError(
            f"shards have no split {split}", remedy="give a separate pattern for each split"
        )
    if all(file.lower().endswith(TAR_SUFFIXES) for file in files):
        return TarExamples(files)
    records.check_kind(files[0])
    return ShardExamples(files)


def check_there(data: str) -> None:
    """Checks that a data set exists on this machine, before TensorFlow loads.

    Args:
        data: as in ``open_examples``; remote data and TFDS sets are not checked here.

    Raises:
        MissingInputError: as in ``open_examples``.
    """
    if data.startswith("tfds:") or not data or paths.scheme(data):
        return
    path = paths.local(data)
    if not (ending_of(path) or path.is_dir() or path.suffix.lower() == ".json"):
        _find_shards(data)


def open_images(images: str | AnyPath, select: Sequence[str] = ()) -> ExampleSet:
    """Opens all images of a data set: every split, and any depth of a folder.

    Args:
        images: as ``data`` of ``open_examples``.
        select: only rows of a table with these values, as ``COLUMN=VALUE``.

    Raises:
        InputError: for the reasons of ``open_examples``, or if the set has no image.
    """
    found = open_examples(images, select=select, default_split="", folders="images")
    if not found.count:
        raise InputError(
            "no image in the data",
            Place(str(images)),
            f"supported endings: {', '.join(IMAGE_SUFFIXES)}",
        )
    return found


def open_downloads(source: str, columns: Columns | None = None) -> ExampleSet:
    """Opens raw pairs as downloaded, in the layout of their source.

    Args:
        source: ``tfds:NAME``, a folder written by img2dataset, or a pattern of its shards
            (``.tfrecord``, ``.tar`` or ``.parquet``).
        columns: the field for each kind of content; by default ``Columns()``.

    Raises:
        InputError: if the source is none of these.
    """
    columns = columns or Columns()
    if source.startswith("tfds:"):
        from align_keras.data.examples.tfds_examples import TFDSExamples

        return TFDSExamples(source, columns=columns)
    kinds = {".tfrecord": ShardExamples, ".tar": TarExamples, ".tgz": TarExamples}
    kinds[".parquet"] = ParquetExamples
    patterns = [source]
    if paths.path_of(source).is_dir():
        patterns = [f"{source}/*{extension}*" for extension in kinds]
    for pattern in patterns:
        files = matching_files(pattern)
        for extension, kind in kinds.items():
            if files and all(extension in os.path.basename(path) for path in files):
                return kind(files, columns)
    found = matching_files(f"{source}/*" if paths.path_of(source).is_dir() else source)
    remedy = f"there is only {listing(list(map(os.path.basename, found)))}" if found else ""
    if len(found) == 1 and ending_of(found[0]):
        remedy = "a table is given as <captions>"
    raise MissingInputError(
        f"{source} is neither tfds:NAME nor a folder or quoted pattern of .tfrecord, .tar or "
        ".parquet files that img2dataset wrote",
        remedy=remedy,
    )


def _find_shards(data: str | AnyPath) -> list[str]:
    try:
        return records.find_shards(str(data))
    except MissingInputError as error:
        remedy = "give a folder, a table, or a quoted pattern of shards"
        raise MissingInputError(error.problem, remedy=remedy) from None


def _open_table(
    path: AnyPath, split: str, images: str | AnyPath, columns: Columns, default_split: str
) -> TableExamples:
    if images:
        with errors.concerning("images"):
            ImageFolder(images)
    check_columns(path, columns)
    table = TableExamples(path, images, columns)
    if split or (default_split and table.has_column("split")):
        select = (*columns.select, f"split={split or default_split}")
        columns = dataclasses.replace(columns, select=select)
        table = TableExamples(path, images, columns)
        table.split = split or default_split
    table.keep_rows()
    if next(iter(table), None) is None:
        wanted = " and ".join(columns.select) or "anything"
        raise InputError(f"{path} has no row with {wanted}", remedy=values_of(path, columns.select))
    return table


def _open_folder(path: AnyPath, split: str, default_split: str, folders: str) -> FolderExamples:
    if split and not (path / split).is_dir():
        there = listed(sorted(own.name for own in path.iterdir() if own.is_dir()))
        raise MissingInputError(
            f"no folder {path / split} for the split {split}",
            remedy=f"there are {there}" if there else "",
            setting="split",
        )
    chosen = ""
    if split or (default_split and (path / default_split).is_dir()):
        chosen = split or default_split
        path = path / chosen
    found = FolderExamples(path, classes=folders == "classes")
    found.split = chosen
    if folders == "images":
        return found
    if not found.count:
        raise InputError(f"{path} has no class folders", remedy=f"give such a folder, {_KINDS}")
    return found
