"""Checksums of a set of shards: ``DIR/train-checksums.json`` of ``DIR/train-00000.tfrecord``."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from align_keras import checksums, paths
from align_keras.data import shard_names

logger = logging.getLogger(__name__)

#: How the lists of sets end.
END = f"-{checksums.NAME}"
# Shards, their statistics, and lists of pairs; Beam may write several.
_FILE = re.compile(
    r"(.+)-([0-9]{5}(\.tfrecord|_stats\.json)|kept(-[0-9]{5}-of-[0-9]{5})?\.jsonl)", re.DOTALL
)


def list_of(output: str | paths.AnyPath) -> paths.AnyPath:
    """Where the checksums of a set stand, which is called as in ``DIR/train``."""
    return paths.path_of(f"{output}{END}")


def set_of(file: str) -> str | None:
    """The set of a shard, statistics or a list of pairs; None of another file."""
    found = _FILE.fullmatch(file)
    return found[1] if found else None


def write(output: str | Path) -> None:
    """Writes the checksums of a set on this machine, if it has files."""
    folder = Path(output).parent
    own = sorted(path for path in folder.iterdir() if set_of(str(path)) == str(output))
    if own:
        checksums.write(list_of(output), {path.name: checksums.of_file(path) for path in own})


def check_statistics(shards: Iterable[str]) -> None:
    """Holds the statistics of local shards against the checksums of their sets.

    Of the shards themselves the sizes are compared, and a warning goes to the log: which records
    are lost shows when they are read.

    Raises:
        InputError: if statistics or a list of checksums are damaged.
    """
    sets: dict[str, list[str]] = {}
    for shard in shards:
        if not paths.scheme(shard) and (output := set_of(shard)):
            sets.setdefault(output, []).append(shard)
    for output, own in sets.items():
        # Without statistics the records are counted.
        beside = (shard_names.stats_path(shard) for shard in own)
        stats = {os.path.basename(path) for path in beside if os.path.exists(path)}
        for fault in checksums.faults(list_of(output), names=stats.__contains__):
            fault.remedy = "restore it, or delete it to count the records again"
            raise fault
        names = {os.path.basename(shard) for shard in own}
        for fault in checksums.faults(list_of(output), read_up_to=0, names=names.__contains__):
            logger.warning("%s", fault)
