"""Applies the rules to a table of texts on all cores of one machine; opens no images.

Python reads the table in blocks of columns, and judges the rows that SQL would handle differently.
DuckDB splits, counts and writes all other rows. The rules stay those of ``filters``, which judge
each combination of counts that occurs. The output equals that of ``Preparation.kept``.
"""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from align_keras import progress
from align_keras.data.examples import Example, column_texts
from align_keras.data.examples.table_examples import TableExamples
from align_keras.data.examples.tables import PARQUET_ROW
from align_keras.data.preparation import filters, plain_texts
from align_keras.data.preparation.counting import flag_pairs, open_database
from align_keras.data.preparation.filter_report import EXAMPLES, Tally
from align_keras.data.preparation.judging import Preparation, pair_key
from align_keras.data.preparation.verdicts import Picture, Verdict
from align_keras.preprocessing.double_buffer import prepared_batches

# Number of rows that a DuckDB thread takes at a time, so small that each thread gets a part of a
# block.
_PIECE = 4_096
_LINES_READ = 10_000

# For a pair that Python judged, the table holds its output line if it is kept (`record`), the start
# of its line if it is dropped (`place`), and its caption as JSON (`shown`). For other pairs, SQL
# builds these from `image` and the caption, `written`. An unusable pair has a `reason` and no
# `text`; the `reason` of the others is empty.
_PAIRS = """
CREATE TABLE pairs (pair BIGINT, row_number BIGINT, caption INTEGER, key UBIGINT, image VARCHAR,
    text VARCHAR, words BIGINT, reason VARCHAR, written VARCHAR, record VARCHAR, place VARCHAR,
    shown VARCHAR)
"""
_ODD = {
    **dict.fromkeys(("pair", "row_number", "caption"), "int64"),
    **{"key": "uint64", "image": "string", "text": "string", "words": "int64"},
    **dict.fromkeys(("reason", "written", "record", "place", "shown"), "string"),
}
_ADD_PLAIN = """
INSERT INTO pairs
    SELECT row_number, row_number, 0, key, image, array_to_string(words, ' '), len(words), '',
        caption, NULL, NULL, NULL
    FROM (SELECT *, regexp_extract_all(lower(caption), '{unigram}') AS words FROM plain)
"""


def _escaped(column: str) -> str:
    """The SQL of a plain text inside JSON quotes."""
    return rf"""replace(replace({column}, '\', '\\'), '"', '\"')"""


_PROFILES = """
SELECT DISTINCT words, coalesce(images, 0), coalesce(texts, 0), coalesce(rare, false), reason
FROM pairs LEFT JOIN flags USING (pair)
"""
_JUDGED = """
CREATE TABLE verdicts AS SELECT * FROM profiles;
CREATE VIEW judged AS
    SELECT pairs.*, verdicts.rule, verdicts.ending
    FROM pairs LEFT JOIN flags USING (pair) JOIN verdicts
        ON pairs.words = verdicts.words AND pairs.reason = verdicts.reason
        AND coalesce(flags.images, 0) = verdicts.images
        AND coalesce(flags.texts, 0) = verdicts.texts
        AND coalesce(flags.rare, false) = verdicts.rare;
"""
_COUNTED = "SELECT rule, reason, words, count(*) FROM judged GROUP BY ALL"
_LEFT_OUT = f"""
SELECT coalesce(
    place,
    '{{"where": "{PARQUET_ROW}' || (row_number + 1) || '", "image": "' || {_escaped("image")}
    || '"'
) || ending
FROM judged WHERE rule IS NOT NULL ORDER BY row_number, caption
"""
_KEPT = f"""
SELECT coalesce(
    record,
    '{{"url": "' || {_escaped("image")} || '", "caption": "' || {_escaped("written")} || '"}}'
)
FROM judged WHERE rule IS NULL ORDER BY key, row_number, caption
"""
_SHOWN = f"""
SELECT rule, reason, row_number, printf('%016x', key), image, written, shown FROM judged
JOIN (SELECT unnest(arg_min(pair, key, {EXAMPLES})) AS pair FROM judged GROUP BY rule) USING (pair)
"""


def can_judge(preparation: Preparation) -> bool:
    """Whether ``judge`` supports everything that the preparation requests."""
    source, rules = preparation.source, preparation.rules
    return (
        preparation.table_only
        and preparation.is_unsafe is None
        and rules.language is None
        and isinstance(source, TableExamples)
        and source.text_columns is not None
        and importlib.util.find_spec("duckdb") is not None
    )


def judge(preparation: Preparation, scratch: Path, kept: Path, left_out: Path) -> Tally:
    """Applies the rules, and writes the kept and the dropped pairs.

    Args:
        preparation: a preparation for which ``can_judge`` is true.
        scratch: folder for the database.
        kept: path of the JSON lines of kept pairs, in shuffled order.
        left_out: path of the JSON lines of dropped pairs, in the order of the table.

    Raises:
        InputError: if the table is not readable.
    """
    with contextlib.closing(open_database(scratch)) as database:
        _Pairs(preparation, database).add()
        with progress.working("judging pairs"):
            flag_pairs(database, preparation.rules)
            _judge(database, preparation.rules)
        tally, source = Tally(), preparation.source
        assert isinstance(source, TableExamples)
        for rule, reason, words, pairs in database.execute(_COUNTED).fetchall():
            tally.count(rule, reason or None, words, pairs)
        for example, verdict in _shown(database, source):
            tally.show(example, verdict, Picture())
        _write(left_out, _lines(database, _LEFT_OUT))
        lines = _lines(database, _KEPT)
        _write(kept, progress.watch(lines, "writing shuffled pairs", "pair", tally.kept))
    return tally


# === Pairs ===


@dataclasses.dataclass
class _Block:
    """Consecutive rows of the table."""

    rows: int
    plain: Any
    """A ``pyarrow.Table`` of row_number, key, image and caption."""
    odd: list[dict[str, object]]
    """Pairs judged by Python, each a dict with the columns of the table ``pairs``."""


class _Pairs:
    """Inserts the pairs of a table into the database.

    Args:
        preparation: preparation whose source is the table.
        database: a DuckDB connection.
    """

    def __init__(self, preparation: Preparation, database: Any) -> None:
        self._preparation, self._database = preparation, database
        assert isinstance(preparation.source, TableExamples)
        self._source = preparation.source
        self._texts = plain_texts.plain_texts(database)
        self._numbers = itertools.count(1)
        database.execute(_PAIRS)

    def add(self) -> None:
        """Adds all pairs; reads the next block while DuckDB works on the current one."""
        sql = _ADD_PLAIN.format(unigram=self._texts.unigram)
        total = column_texts.count_rows(self._source.parts[0])
        with progress.bar("counting words and images", total, "row") as bar:
            for ((_, block),) in prepared_batches(self._read(), self._block, 1):
                self._database.register("plain", block.plain)
                self._database.execute(sql)
                if block.odd:
                    self._add_odd(block.odd)
                bar.done += block.rows

    def _read(self) -> Iterator[tuple[int, Any]]:
        """Yields the number of the first row, and a batch of images and captions."""
        first = 0
        for batch in column_texts.read_texts(
            self._source.parts[0], self._source.text_columns or ()
        ):
            yield first, batch
            first += len(batch)

    def _block(self, item: tuple[int, Any]) -> _Block:
        import pyarrow
        import pyarrow.compute as pc

        first, batch = item
        images, captions = batch.columns
        is_plain = pc.and_kleene(
            pc.match_substring_regex(images, self._texts.image),
            pc.match_substring_regex(captions, self._texts.caption),
        ).fill_null(False)
        numbers = pyarrow.array(range(first, first + len(batch)))
        rows = pyarrow.table([numbers, images, captions], ["row_number", "image", "caption"])
        plain = rows.filter(is_plain)
        keys = [
            int(pair_key(self._preparation.seed, f"{PARQUET_ROW}{number + 1}", 0), 16)
            for number in plain["row_number"].to_pylist()
        ]
        plain = plain.append_column("key", pyarrow.array(keys, "uint64"))
        odd = rows.filter(pc.invert(is_plain)).to_pylist()
        return _Block(
            len(batch),
            pyarrow.Table.from_batches(plain.to_batches(max_chunksize=_PIECE), plain.schema),
            [pair for row in odd for pair in self._odd(**row)],
        )

    def _odd(self, row_number: int, image: object, caption: object) -> Iterator[dict[str, object]]:
        """Yields the pairs of a row, judged by Python, with the columns of the table ``pairs``."""
        example = self._source.example_of_texts(row_number, image, caption)
        for index, text in enumerate(example.texts):
            verdict, record = self._preparation.judged_text(example, index, text)
            usable = verdict.rule is None
            place = {"where": example.key, "image": example.image_id}
            yield {
                "pair": -next(self._numbers),  # other pairs have the numbers of their rows
                "row_number": row_number,
                "caption": index,
                "key": int(verdict.key, 16),
                "image": example.image_id,
                "text": " ".join(verdict.words) if usable else None,
                "words": len(verdict.words),
                "reason": verdict.reason or "",
                "record": record.decode() if record else None,
                "place": json.dumps(place)[:-1],
                "shown": json.dumps(text if isinstance(text, str) else None),
            }

    def _add_odd(self, pairs: list[dict[str, object]]) -> None:
        import pyarrow

        schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in _ODD.items()])
        self._database.register("odd", pyarrow.Table.from_pylist(pairs, schema))
        self._database.execute("INSERT INTO pairs SELECT * FROM odd")


# === Verdicts ===


def _judge(database: Any, rules: filters.Rules) -> None:
    """Creates the view ``judged``: all pairs, each with the rule that it breaks."""
    import pyarrow

    profiles = database.execute(_PROFILES).fetchall()
    broken = [
        "unusable_row"
        if reason
        else filters.broken_text_rule(words, filters.Counts(images, texts, rare), rules)
        for words, images, texts, rare, reason in profiles
    ]
    endings = [
        None if rule is None else _ending(rule, profile[-1])
        for rule, profile in zip(broken, profiles, strict=True)
    ]
    schema = pyarrow.schema(
        [
            *((name, pyarrow.int64()) for name in ("words", "images", "texts")),
            ("rare", pyarrow.bool_()),
            *((name, pyarrow.string()) for name in ("reason", "rule", "ending")),
        ]
    )
    rows = [(*profile, *others) for *others, profile in zip(broken, endings, profiles, strict=True)]
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pyarrow.array(own, field.type) for own, field in zip(columns, schema, strict=True)]
    database.register("profiles", pyarrow.Table.from_arrays(arrays, schema=schema))
    database.execute(_JUDGED)


def _ending(rule: str, reason: str) -> str:
    """The end of the output line of a dropped pair."""
    return ", " + json.dumps({"rule": rule, "reason": reason or filters.RULES[rule]})[1:]


def _shown(database: Any, source: TableExamples) -> Iterator[tuple[Example, Verdict]]:
    """Yields the pairs with the smallest keys for each rule."""
    for rule, reason, row, key, image, written, shown in database.execute(_SHOWN).fetchall():
        caption = written if shown is None else json.loads(shown)
        example = source.example_of_texts(row, image, caption)
        yield example, Verdict(key, caption, [], rule, reason or None)


# === Files ===


def _lines(database: Any, sql: str) -> Iterator[str]:
    result = database.execute(sql)
    while rows := result.fetchmany(_LINES_READ):
        yield from (line for (line,) in rows)


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
