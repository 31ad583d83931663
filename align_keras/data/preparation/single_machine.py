"""The rules on one machine: counts by DuckDB, images by threads, the order by a sort on disk."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

from align_keras import files
from align_keras.data import records
from align_keras.data.preparation.counting import WholeSetCounts
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.filters import Counts
from align_keras.data.preparation.judging import Preparation
from align_keras.data.preparation.shuffling import RecordSorter
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError

_Items = TypeVar("_Items", bound=Iterable)


def _unwatched(items: _Items, _: str) -> _Items:
    return items


def prepare(
    preparation: Preparation, output: str, shard_size: int, watch: Callable = _unwatched
) -> dict[str, Any]:
    """Reads a source, applies the rules and writes shards in a shuffled order.

    Without images (``table_only``) the kept pairs are lines of ``OUTPUT-kept.jsonl`` instead.

    Args:
        preparation: what to do.
        output: path and start of the shards' names.
        shard_size: records a shard.
        watch: wraps an iterator, such as to show progress; it is told what is counted.

    Returns:
        The report, as of ``filter_report.Tally.as_json``. What was left out is listed in
        ``OUTPUT-left_out.jsonl``.

    Raises:
        InputError: as ``workspace``.
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
            with ShardWriter(output, shard_size) as writer:
                for record in kept:
                    writer.write(record)
        listed = Path(f"{output}-left_out.jsonl")
        listed.unlink(missing_ok=True)
        if left_out.stat().st_size:
            left_out.rename(listed)
    return tally.as_json(preparation.rules)


def _write_lines(lines: Iterable[bytes], directory: Path, output: str) -> None:
    unfinished = directory / "kept.jsonl"
    with unfinished.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    unfinished.rename(f"{output}-kept.jsonl")


class _Lines:
    """Writes what is appended as lines of JSON: a list of all would not fit into memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def append(self, pair: dict[str, Any]) -> None:
        self._file.write(json.dumps(pair) + "\n")


class _NoCounts:
    @staticmethod
    def of_part(_: int) -> Iterator[tuple[int, int, Counts]]:
        return iter(())


@contextlib.contextmanager
def counts_of(
    preparation: Preparation, directory: Path, watch: Callable
) -> Iterator[WholeSetCounts | _NoCounts]:
    """The ``WholeSetCounts`` of a source, or none at all where no rule needs them."""
    if not preparation.rules.needs_counts:
        yield _NoCounts()
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
def workspace(output: str | Path) -> Iterator[Path]:
    """A folder for unfinished work, ``OUTPUT.unfinished``; it is removed at the end of a run.

    If it is there at the start, a run was cut off. The shards beside it belong to that run: they
    are removed, and everything begins anew. An error removes what this run wrote.

    Yields:
        Its path.

    Raises:
        InputError: if there are shards of a finished run, or another run is writing.
    """
    output = Path(output)
    directory = Path(f"{output}.unfinished")
    if not directory.exists() and (existing := _shards(output)):
        raise there_already(existing[0])
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(directory / "lock"))
        except BlockingIOError:
            raise InputError(
                f"another run is writing {output}", remedy="choose another", setting="output"
            ) from None
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


def there_already(shard: str | Path) -> InputError:
    """The error about a shard of a finished run."""
    return InputError(
        f"{shard} is there already", remedy="remove it or choose another", setting="output"
    )


def _shards(output: Path) -> list[Path]:
    return sorted(output.parent.glob(f"{output.name}-[0-9]*.tfrecord"))


def remove_shards(output: str | Path) -> None:
    """Removes the shards of a name, whole and partial, with their statistics."""
    output = Path(output)
    for shard in _shards(output):
        Path(records.stats_path(str(shard))).unlink(missing_ok=True)
        shard.unlink()
    for path in output.parent.glob(f"{output.name}-[0-9]*.tfrecord*.partial"):
        path.unlink()
