"""What is looked at in shards before a run begins."""

import itertools
import logging

from align_keras.data import records

logger = logging.getLogger(__name__)


def check_shards(shards, max_records=100_000):
    """Reads a share of every shard and raises on what would spoil a run.

    A shard without a readable record is passed over where others have some. Of one that
    ``records.count_records`` counts by its statistics alone the log says so here, and also
    where these state too few, since the records beyond are not read.

    Args:
        shards: paths.
        max_records: how many to read in all, spread evenly over the shards.

    Raises:
        ValueError: if a shard is empty, none has a readable record, or one lacks ``jpg`` or
            ``txt`` or holds a caption that is not UTF-8. One line, which names the file and
            the mend.
    """
    share = max(1, max_records // len(shards))
    unreadable = []
    for shard in shards:
        count = intact = 0
        for record in itertools.islice(records.read_frames(shard), share):
            if record is not None:
                check_pair(shard, count, record)
                intact += 1
            count += 1
        fault = "no readable record in it; remove the shard or write it again"
        if not intact:
            unreadable.append(f"{shard}: {fault}")
        if not count or len(unreadable) == len(shards):
            raise ValueError(unreadable[-1])
        stated = records.stated_alone(shard)
        if stated is not None and count > stated:
            fault = (
                f"more records than the {stated:,} of {records.stats_path(shard)}; delete that file"
            )
        if stated is not None and (not intact or count > stated):
            logger.warning("%s: %s", shard, fault)


def check_pair(shard, index, record):
    """Raises a ValueError on a record that no run starts with, as ``check_shards``.

    Args:
        shard: its path, for the message.
        index: its place in the shard, from 0.
        record: the serialised record.

    Returns:
        Its fields, as ``records.parse_pair`` gives them.
    """
    try:
        fields = records.parse_pair(record)
    except ValueError as error:
        raise ValueError(
            f"{shard}: record {index} is {error}; pack it with recipes/prepare_data.py"
        ) from None
    missing = [name for name in ("jpg", "txt") if name not in fields]
    if missing:
        raise ValueError(
            f"{shard}: record {index} has no field {' and no '.join(missing)}, only "
            f"{', '.join(sorted(fields)) or 'nothing'}; pack it with "
            "recipes/prepare_data.py or write img2dataset's layout"
        )
    try:
        fields["txt"].decode("utf-8")
    except (UnicodeDecodeError, AttributeError):
        raise ValueError(
            f"{shard}: the caption (txt) of record {index} is not UTF-8; convert the "
            "captions to UTF-8 and pack them again"
        ) from None
    return fields
