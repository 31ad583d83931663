"""Checks of shards before a run begins."""

import itertools
import logging
from collections.abc import Sequence
from typing import Any

from align_keras import progress
from align_keras.data import records, shard_checksums, shard_names
from align_keras.errors import InputError, Place

logger = logging.getLogger(__name__)


def check_shards(shards: Sequence[str], max_records: int = 100_000) -> None:
    """Reads a share of every shard and raises on what would spoil a run.

    Records that are corrupt or that protobuf refuses are passed over, as in training, and so is a
    shard without a readable record where others have some. Of one that
    ``records.count_records`` counts by its statistics alone the log says so here, and also
    where these state too few, since the records beyond are not read.

    Args:
        shards: paths.
        max_records: how many to read in all, spread evenly over the shards.

    Raises:
        InputError: if statistics are damaged, a shard is empty or a file of another kind, none has
            a readable record, or one lacks ``jpg`` or ``txt`` or holds a caption that is not UTF-8.
    """
    shard_checksums.check_statistics(shards)
    share = max(1, max_records // len(shards))
    unreadable = []
    for shard in progress.watch(shards, "looking into shards", "shard", len(shards)):
        count = intact = 0
        foreign = None
        for record in itertools.islice(records.read_frames(shard), share):
            if record is not None:
                try:
                    check_pair(shard, count, record)
                    intact += 1
                except NoExampleError as error:
                    foreign = foreign or error
            count += 1
        fault = "no readable record in it"
        remedy = "remove the shard or write it again"
        if not intact:
            records.check_kind(shard)
            unreadable.append(shard)
        if not count or len(unreadable) == len(shards):
            raise foreign or InputError(fault, Place(shard), remedy)
        stated = records.stated_alone(shard)
        if stated is not None and count > stated:
            fault = f"more records than the {stated:,} in {shard_names.stats_path(shard)}"
            remedy = "delete that file"
        if stated is not None and (not intact or count > stated):
            logger.warning("%s", InputError(fault, Place(shard), remedy))


class NoExampleError(InputError):
    """A record is no ``tf.train.Example``: of another kind, or damaged before it was written."""


def check_pair(shard: str, index: int, record: bytes) -> dict[str, Any]:
    """Raises an InputError on a record with which no run starts, as ``check_shards``.

    NoExampleError is the one that a run passes over.

    Args:
        shard: its path, for the message.
        index: its place in the shard, from 0.
        record: the serialised record.

    Returns:
        Its fields, as ``records.parse_pair`` gives them.
    """
    place = Place(shard, f"record {index}")
    remedy = "pack it with recipes/prepare_data.py or write img2dataset's layout"
    try:
        fields = records.parse_pair(record)
    except ValueError as error:
        raise NoExampleError(str(error), place, remedy) from None
    missing = [name for name in ("jpg", "txt") if name not in fields]
    if missing:
        found = ", ".join(sorted(fields)) or "nothing"
        raise InputError(f"no field {' and no '.join(missing)}, only {found}", place, remedy)
    for name in ("jpg", "txt"):
        if not isinstance(fields[name], bytes):
            raise InputError(f"the field {name} holds a number, not bytes", place, remedy)
    try:
        fields["txt"].decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            "the caption (txt) is not UTF-8",
            place,
            "convert the captions to UTF-8 and pack them again",
        ) from None
    return fields
