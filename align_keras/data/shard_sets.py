"""Sets of shards: the names of their files, and writing a set completely or not at all.

The set ``DIR/train`` consists of ``DIR/train-00000.tfrecord`` and so on, with exactly five digits.
``DIR/train-2-00000.tfrecord`` therefore belongs to another set.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from align_keras import files, full_disk, lazy, paths, uploads
from align_keras.data import shard_checksums
from align_keras.errors import InputError, concerning
from align_keras.remote_path import RemotePath

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy.Module("tensorflow")

_MOST_SHARDS = 100_000
_JOURNAL = "moved.json"
_SHARD = r"-[0-9]{5}\.tfrecord"
# Beam may write several such lists.
_KEPT = r"-kept(-[0-9]{5}-of-[0-9]{5})?\.jsonl"


def shard_path(output: str, number: int) -> str:
    """The path of a shard: ``DIR/train`` and 7 give ``DIR/train-00007.tfrecord``."""
    check_number(number + 1)
    return f"{output}-{number:05d}.tfrecord"


def check_number(shards: int) -> None:
    """Raises an InputError if a set would have more shards than five digits can number."""
    if shards > _MOST_SHARDS:
        raise InputError(
            f"a set has at most {_MOST_SHARDS:,} shards",
            remedy="raise <shard_size>",
            setting="shard_size",
        )


def check_output(output: str) -> None:
    """Raises an InputError if a set's path does not end in a name for its shards."""
    name = os.path.basename(output)
    if not name:
        raise InputError(
            f"{output} ends in a slash, but shards need a name",
            remedy=f"give a path such as {output}train",
        )
    if name.startswith("."):
        raise InputError(
            f"shards called {name}-00000.tfrecord would be hidden",
            remedy="give a path that ends in a name such as train",
        )


def find_set(output: str | paths.AnyPath) -> list[str]:
    """The sorted shards of a set, without sets whose longer names begin with the same name."""
    return _named_as(str(output), _SHARD)


def pattern_of(output: str) -> str:
    """A pattern that matches the shards of this set and of no other."""
    return f"{output}-?????.tfrecord"


def check_is_new(output: str | paths.AnyPath) -> None:
    """Raises an InputError if the set exists, or a list of kept pairs in its place."""
    if there := find_set(output) or _named_as(str(output), _KEPT):
        raise InputError(
            f"{there[0]} already exists",
            remedy="remove it or choose another",
            setting="output",
        )


def _named_as(output: str, end: str) -> list[str]:
    folder, name = os.path.split(output)
    if paths.scheme(output):
        found = tf.io.gfile.glob(f"{paths.literal_brackets(output)}-*")
    else:
        found = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    is_own = re.compile(re.escape(name) + end).fullmatch
    names = (os.path.basename(path) for path in found)
    return sorted(os.path.join(folder, own) for own in names if is_own(own))


@dataclasses.dataclass(frozen=True)
class UnfinishedSet:
    """The folders in which a set is written."""

    scratch: Path
    """Folder for temporary files."""
    folder: Path
    """Folder for the files of the set, under their final names."""


@contextlib.contextmanager
def made_here(folder: paths.AnyPath, *names: str) -> Iterator[Path]:
    """Yields a local folder for new sets: the folder itself, or one that is uploaded at the end.

    Args:
        folder: folder for the sets.
        *names: names of the sets.

    Raises:
        InputError: if a set of that name exists that was not begun here.
    """
    if not isinstance(folder, RemotePath):
        yield folder
        return
    begun = folder / "unfinished"
    if not begun.exists():
        for name in names:
            check_is_new(folder / name)
    with full_disk.reported(str(folder)), uploads.staged(folder) as staged:
        yield staged
        folder.mkdir(parents=True, exist_ok=True)
        begun.touch()
    begun.unlink()


def check_can_begin(output: str | Path) -> None:
    """Raises an InputError unless the set can be written; removes what a killed process left.

    A process may be killed after its set is complete and before its work folder is removed. The
    next process then finds the set, writes nothing, and would leave that folder there for ever.

    Raises:
        InputError: if the set exists, or another process is writing it.
    """
    with concerning("output"):
        output = paths.local(output)
        work = Path(f"{output}.unfinished")
        if work.exists():
            with files.work_folder(work) as scratch:
                _take_back(scratch, output.parent)
        check_is_new(output)


@contextlib.contextmanager
def unfinished(output: str | Path, *others: str | Path) -> Iterator[UnfinishedSet]:
    """Writes a set completely or not at all, in the folder ``OUTPUT.unfinished``.

    At the end, the files named after the set get checksums and move next to that folder, which is
    then removed. After an error they do not move. A process that is killed during the move leaves a
    list of the files. The next process takes back each file on the list that is still the same.

    Args:
        output: path and prefix of the shards.
        *others: prefixes of further sets in the same folder.

    Raises:
        InputError: if the set exists, or another process is writing it.
        NoSpaceError: if the disk is full.
    """
    with contextlib.ExitStack() as stack:
        # Errors that the caller raises inside the block are not about the output.
        with concerning("output"):
            output = paths.local(output)
            scratch = stack.enter_context(files.work_folder(Path(f"{output}.unfinished")))
            _take_back(scratch, output.parent)
            files.empty(scratch)
            for own in (output, *others):
                check_is_new(own)
        work = UnfinishedSet(scratch, scratch / "set")
        work.folder.mkdir()
        yield work
        for own in (output, *others):
            check_is_new(own)
            shard_checksums.write(work.folder / Path(own).name)
        starts = tuple(f"{Path(own).name}-" for own in (output, *others))
        try:
            _move(work, output.parent, starts)
        except BaseException:
            _take_back(scratch, output.parent)
            raise


def _move(work: UnfinishedSet, folder: Path, starts: tuple[str, ...]) -> None:
    # A shard's statistics, NAME_stats.json, sort after the shard.
    own = sorted(path for path in work.folder.iterdir() if path.name.startswith(starts))
    states = {path.name: _state(path) for path in own}
    files.write_whole(work.scratch / _JOURNAL, json.dumps(states))
    for path in reversed(own):
        path.replace(folder / path.name)
    # Without the journal nothing is taken back: the set is complete, whatever happens next.
    (work.scratch / _JOURNAL).unlink()


def _take_back(scratch: Path, folder: Path) -> None:
    """Removes the files that moved before a process was killed."""
    journal = scratch / _JOURNAL
    if journal.exists():
        for name, state in files.read_json(journal, dict).items():
            if _state(folder / name) == state:
                (folder / name).unlink()


def _state(path: Path) -> list[int]:
    """Identifies a file; another file of the same name has other values."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns]
