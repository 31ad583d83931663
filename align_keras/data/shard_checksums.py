"""Checksums of a set of shards: ``DIR/train-checksums.json`` for ``DIR/train-00000.tfrecord``."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from align_keras import checksums, paths
from align_keras.data import shard_names

logger = logging.getLogger(__name__)

#: Ending of the names of checksum files.
END = f"-{checksums.NAME}"
# Shards, their statistics, and lists of kept pairs. Beam may write several such lists.
_FILE = re.compile(
    r"(.+)-([0-9]{5}(\.tfrecord|_stats\.json)|kept(-[0-9]{5}-of-[0-9]{5})?\.jsonl)", re.DOTALL
)


def list_of(output: str | paths.AnyPath) -> paths.AnyPath:
    """Path of the checksum file of a set such as ``DIR/train``."""
    return paths.path_of(f"{output}{END}")


def set_of(file: str) -> str | None:
    """The set of a shard, of a statistics file or of a list of pairs; None for any other file."""
    found = _FILE.fullmatch(file)
    return found[1] if found else None


def write(output: str | Path) -> None:
    """Writes the checksums of a local set, if it has files."""
    folder = Path(output).parent
    own = sorted(path for path in folder.iterdir() if set_of(str(path)) == str(output))
    if own:
        checksums.write(list_of(output), {path.name: checksums.of_file(path) for path in own})


def check_statistics(shards: Iterable[str]) -> None:
    """Compares the statistics of local shards with the checksums of their sets.

    For the shards themselves only the sizes are compared, and a difference is logged as a warning.
    Lost records are found when the shards are read.

    Raises:
        InputError: if statistics or a checksum file are damaged.
    """
    sets: dict[str, list[str]] = {}
    for shard in shards:
        if not paths.scheme(shard) and (output := set_of(shard)):
            sets.setdefault(output, []).append(shard)
    for output, own in sets.items():
        # Records of a shard without statistics are counted.
        beside = (shard_names.stats_path(shard) for shard in own)
        stats = {os.path.basename(path) for path in beside if os.path.exists(path)}
        for fault in checksums.faults(list_of(output), names=stats.__contains__):
            fault.remedy = "restore it, or delete it to count the records again"
            raise fault
        names = {os.path.basename(shard) for shard in own}
        for fault in checksums.faults(list_of(output), read_up_to=0, names=names.__contains__):
            logger.warning("%s", fault)
