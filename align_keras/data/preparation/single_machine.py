"""The rules on one machine: DuckDB counts, threads decode images, records are sorted on disk."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from align_keras import progress
from align_keras.data import shard_sets
from align_keras.data.preparation import filter_report, text_rules
from align_keras.data.preparation.counting import WholeSetCounts
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.filters import Counts
from align_keras.data.preparation.judging import Preparation
from align_keras.data.preparation.shuffling import RecordSorter
from align_keras.data.shard_writer import ShardWriter


def prepare(preparation: Preparation, output: str, shard_size: int) -> dict[str, Any]:
    """Reads a source, applies the rules and writes shards in shuffled order.

    Without images (``table_only``), the kept pairs become lines of ``OUTPUT-kept.jsonl`` instead.

    Args:
        preparation: what to do.
        output: path and prefix of the shards.
        shard_size: records per shard.

    Returns:
        The report, as returned by ``filter_report.Tally.as_json``. It is also written to
        ``OUTPUT-report.json`` and, with pictures, to ``OUTPUT-report.html``. Dropped pairs are
        listed in ``OUTPUT-left_out.jsonl``.

    Raises:
        InputError: as in ``shard_sets.unfinished``.
    """
    name = Path(output).name
    with shard_sets.unfinished(output) as work:
        left_out = work.folder / f"{name}-left_out.jsonl"
        if text_rules.can_judge(preparation):
            kept = work.folder / f"{name}-kept.jsonl"
            tally = text_rules.judge(preparation, work.scratch, kept, left_out)
        else:
            tally = _prepare(preparation, work, name, shard_size)
        if not left_out.stat().st_size:
            left_out.unlink()
            # This list may be left from an earlier run that packed nothing.
            Path(f"{output}-left_out.jsonl").unlink(missing_ok=True)
        report = tally.as_json(preparation.rules)
        filter_report.write(report, str(work.folder / name))
    return report


def _prepare(
    preparation: Preparation,
    work: shard_sets.UnfinishedSet,
    name: str,
    shard_size: int,
) -> Tally:
    """Judges example by example."""
    with RecordSorter(work.scratch) as sorter:
        left_out = work.folder / f"{name}-left_out.jsonl"
        with counts_of(preparation, work.scratch) as counts, left_out.open("w") as file:
            tally = Tally(left_out=_Lines(file))
            parts: Iterable[tuple[int, str]] = list(enumerate(preparation.source.parts))
            if len(preparation.source.parts) > 1:  # a single part has a bar of its rows
                total = len(preparation.source.parts)
                parts = progress.watch(parts, "judging pairs", "shard", total)
            kept = (
                item
                for number, part in parts
                for item in preparation.kept(part, counts.of_part(number), tally)
            )
            for key, record in kept:
                sorter.add(key, record)
        records = progress.watch(
            sorter.sorted_records(), "writing shuffled pairs", "pair", tally.kept
        )
        if preparation.table_only:
            with (work.folder / f"{name}-kept.jsonl").open("wb") as file:
                file.writelines(line + b"\n" for line in records)
        else:
            shard_sets.check_number(-(-tally.kept // shard_size))
            with ShardWriter(str(work.folder / name), shard_size) as writer:
                for record in records:
                    writer.write(record)
    return tally


class _Lines:
    """Writes appended items as JSON lines, since a list of all items would not fit into memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def append(self, pair: dict[str, Any]) -> None:
        self._file.write(json.dumps(pair) + "\n")


class _NoCounts:
    @staticmethod
    def of_part(_: int) -> Iterator[tuple[int, int, Counts]]:
        return iter(())


@contextlib.contextmanager
def counts_of(preparation: Preparation, directory: Path) -> Iterator[WholeSetCounts | _NoCounts]:
    """The ``WholeSetCounts`` of a source, or empty counts if no rule needs them."""
    if not preparation.rules.needs_counts:
        yield _NoCounts()
        return
    with WholeSetCounts(directory) as counts:
        pairs = (
            (number, *pair)
            for number, part in enumerate(preparation.source.parts)
            for pair in preparation.pairs(part)
        )
        counts.add(progress.watch(pairs, "counting words and images", "pair"))
        with progress.working("looking for frequent words and images"):
            counts.finish(preparation.rules)
        yield counts
