"""``train_shards.json``: the shards of a run, and what has changed since it began."""

import os
from typing import Any

from align_keras import files
from align_keras.data import shard_order
from align_keras.errors import InputError
from align_keras.paths import AnyPath


def list_shards(counts: dict[str, int]) -> dict[str, Any]:
    """Everything that affects the order of records, for ``train_shards.json``.

    This is the version of the order and, for each shard in order, its name, its number of records,
    its number of blocks, and the digest of its records. The folder of the shards is not included,
    so it may change.
    """
    blocks, digests = getattr(counts, "starts", {}), getattr(counts, "digests", {})
    shards = [
        [
            os.path.basename(shard),
            counts[shard],
            len(blocks.get(shard, ())) or 1,
            digests.get(shard, ""),
        ]
        for shard in sorted(counts)
    ]
    return {"order": shard_order.VERSION, "shards": shards}


def check_order(path: AnyPath) -> None:
    """Raises InputError if the run began with a version that reads records in another order.

    Args:
        path: path of the run's JSON file from ``list_shards``, which need not exist.
    """
    if not path.exists():
        return
    # in earlier versions, the file held only the list of shards
    before = files.read_json(path, (dict, list))
    if isinstance(before, list) or before.get("order") != shard_order.VERSION:
        raise InputError(
            f"the run in {path.parent} began with a version that reads records in another order",
            remedy="continue with that version, or give another <workdir>",
            setting="workdir",
        )


def difference_of_shards(before: dict[str, Any], now: dict[str, Any]) -> str:
    """A short description of how the shards in two results of ``list_shards`` differ.

    Empty if all known facts are equal; runs of earlier versions have no digests.
    """
    old, new = ({name: own for name, *own in found["shards"]} for found in (before, now))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            return f"{name} is gone"
        if name not in old:
            return f"{name} is new"
        if old[name][0] != new[name][0]:
            return f"{name} holds {new[name][0]:,} records, not {old[name][0]:,},"
        if old[name][1] != new[name][1]:
            return f"{name} is read in {new[name][1]:,} blocks, not {old[name][1]:,},"
        if len({own[2] for own in (old[name], new[name]) if own[2:] and own[2]}) > 1:
            return f"{name} holds other records"
    return "" if list(old) == list(new) else "the shards are in another order"
