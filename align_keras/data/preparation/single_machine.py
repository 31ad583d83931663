"""The rules on one machine: counts by DuckDB, images by threads, the order by a sort on disk."""

import contextlib
import fcntl
import json
import shutil
from pathlib import Path

from align_keras.data import records
from align_keras.data.preparation.counting import WholeSetCounts
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.shuffling import RecordSorter


def prepare(preparation, output, shard_size, watch=lambda items, what: items):
    """Reads a source, applies the rules and writes shards in a shuffled order.

    Without images (``table_only``) the kept pairs are lines of ``OUTPUT-kept.jsonl`` instead.

    Args:
        preparation: a ``preparation.Preparation``.
        output: path and start of the shards' names.
        shard_size: records a shard.
        watch: wraps an iterator, such as to show progress; it is told what is counted.

    Returns:
        The report, a dict as of ``filter_report.Tally.as_json``. What was left out is listed in
        ``OUTPUT-left_out.jsonl``.

    Raises:
        ValueError: if there are shards of a finished run, or another run is writing. One line.
    """
    with workspace(output) as directory:
        sorter = RecordSorter(directory)
        left_out = directory / "left_out.jsonl"
        with counts_of(preparation, directory, watch) as counts, left_out.open("w") as file:
            tally = Tally(left_out=_Lines(file))
            kept = (
                item
                for number, part in enumerate(preparation.source.parts)
                for item in preparation.kept(part, counts.of_part(number), tally)
            )
            for key, record in watch(kept, "kept"):
                sorter.add(key, record)
        kept = watch(sorter.sorted_records(), "written")
        if preparation.table_only:
            _write_lines(kept, directory, output)
        else:
            with records.ShardWriter(output, shard_size) as writer:
                for record in kept:
                    writer.write(record)
        listed = Path(f"{output}-left_out.jsonl")
        listed.unlink(missing_ok=True)
        if left_out.stat().st_size:
            left_out.rename(listed)
    return tally.as_json(preparation.rules)


def _write_lines(lines, directory, output):
    unfinished = directory / "kept.jsonl"
    with unfinished.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    unfinished.rename(f"{output}-kept.jsonl")


class _Lines:
    """Writes what is appended as lines of JSON: a list of all would not fit into memory."""

    def __init__(self, file):
        self._file = file

    def append(self, pair):
        self._file.write(json.dumps(pair) + "\n")


class _NoCounts:
    @staticmethod
    def of_part(_):
        return ()


@contextlib.contextmanager
def counts_of(preparation, directory, watch):
    """The ``WholeSetCounts`` of a source, or none at all where no rule needs them."""
    if not preparation.rules.needs_counts:
        yield _NoCounts
        return
    with WholeSetCounts(directory) as counts:
        pairs = (
            (number, *pair)
            for number, part in enumerate(preparation.source.parts)
            for pair in preparation.pairs(part)
        )
        counts.add(watch(pairs, "counted"))
        counts.finish(preparation.rules)
        yield counts


@contextlib.contextmanager
def workspace(output):
    """A folder for what is unfinished, ``OUTPUT.unfinished``; it is gone when the run is whole.

    Where it is found at the start a run was cut off, and the shards beside it are that run's: they
    go, and all begins anew. An error removes what this run wrote.

    Yields:
        Its path.

    Raises:
        ValueError: if there are shards of a finished run, or another run is writing.
    """
    output = Path(output)
    directory = Path(f"{output}.unfinished")
    if not directory.exists() and (existing := _shards(output)):
        raise ValueError(f"--output: {existing[0]} is there already; remove it or choose another")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"--output: another run is writing {output}; choose another") from None
        remove_shards(output)
        for path in directory.iterdir():
            if path.name != "lock":
                path.unlink() if path.is_file() else shutil.rmtree(path)
        try:
            yield directory
        except BaseException:
            remove_shards(output)
            raise
        finally:
            shutil.rmtree(directory)


def _shards(output):
    return sorted(output.parent.glob(f"{output.name}-[0-9]*.tfrecord"))


def remove_shards(output):
    """Removes the shards of a name, whole and partial, with their statistics."""
    output = Path(output)
    for shard in _shards(output):
        Path(records.stats_path(str(shard))).unlink(missing_ok=True)
        shard.unlink()
    for path in output.parent.glob(f"{output.name}-[0-9]*.tfrecord*.partial"):
        path.unlink()
