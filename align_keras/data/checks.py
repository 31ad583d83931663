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
    """Reads some records of every shard and raises an error for faults that would spoil a run.

    As in training, corrupt records and records that protobuf cannot parse are skipped. So is a
    shard without a readable record, unless every shard lacks one. ``records.count_records`` may
    know a shard's count only from its statistics file. The log warns here if such a shard has no
    readable record, or more records than its statistics state, since the others are not read.

    Args:
        shards: paths of the shards.
        max_records: how many to read in all, spread evenly over the shards.

    Raises:
        InputError: if statistics are damaged; if a shard is empty or of another file type; if no
            shard has a readable record; if a record lacks ``jpg`` or ``txt``, or its caption is not
            UTF-8.
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
        fault = "no readable record in the shard"
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
    """A record is not a ``tf.train.Example``: it has another type or was damaged before writing."""


def check_pair(shard: str, index: int, record: bytes) -> dict[str, Any]:
    """Raises an InputError if a record would prevent a run, as in ``check_shards``.

    A run skips the records that raise NoExampleError.

    Args:
        shard: path of the shard, for the message.
        index: index of the record in the shard, from 0.
        record: the serialised record.

    Returns:
        The fields of the record, as from ``records.parse_pair``.
    """
    place = Place(shard, f"record {index}")
    remedy = "pack the data with recipes/prepare_data.py or write img2dataset's layout"
    try:
        fields = records.parse_pair(record)
    except ValueError as error:
        raise NoExampleError(str(error), place, remedy) from None
    missing = [name for name in ("jpg", "txt") if name not in fields]
    if missing:
        others = f"only {', '.join(sorted(fields))}" if fields else "and no other"
        raise InputError(f"no field {' or '.join(missing)}, {others}", place, remedy)
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
