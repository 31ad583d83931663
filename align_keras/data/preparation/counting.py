"""Counts over the whole raw set on one machine, by DuckDB: its memory is bounded, the rest on disk.

``beam_pipeline`` has the same counts for many machines.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from align_keras.data.preparation import filters
from align_keras.errors import InputError

_BATCH = 20_000  # pairs handed over at a time
_FLAGS_READ = 10_000

# Distinct pairs first: an image that has an alt-text twice counts once, both ways.
_LIMITS = """
CREATE TABLE distinct_pairs AS SELECT DISTINCT image, text FROM pairs;
CREATE TABLE shared AS
    SELECT text, count(*) AS images FROM distinct_pairs GROUP BY text HAVING images > {shared};
CREATE TABLE crowded AS
    SELECT image, count(*) AS texts FROM distinct_pairs GROUP BY image HAVING texts > {crowded};
DROP TABLE distinct_pairs;
"""
# As filters.ngrams has them: neither makes Python hold tens of millions of strings.
_NGRAMS = """
CREATE VIEW split AS SELECT pair, string_split(text, ' ') AS words FROM pairs WHERE text <> '';
CREATE VIEW ngrams AS
    SELECT pair, unnest(words) AS ngram FROM split
    UNION ALL
    SELECT pair, unnest([two[1] || ' ' || two[2] FOR two IN list_zip(words[:-2], words[2:])])
    FROM split;
CREATE TABLE counted AS SELECT ngram, count(*) AS n FROM ngrams GROUP BY ngram;
"""
_RARE = """
CREATE TABLE rare AS SELECT ngram FROM counted WHERE n < {count};
INSERT INTO rare SELECT ngram FROM counted WHERE n = {count} ORDER BY md5(ngram) OFFSET {room};
CREATE TABLE rare_pairs AS SELECT DISTINCT pair FROM ngrams SEMI JOIN rare USING (ngram);
"""
_FLAGS = """
CREATE TABLE flags AS
    SELECT pair, part, row_number, caption, coalesce(images, 0) AS images,
        coalesce(texts, 0) AS texts, rare_pairs.pair IS NOT NULL AS rare
    FROM pairs LEFT JOIN shared USING (text) LEFT JOIN crowded USING (image)
        LEFT JOIN rare_pairs USING (pair)
    WHERE images IS NOT NULL OR texts IS NOT NULL OR rare_pairs.pair IS NOT NULL;
"""
_NONE = (1 << 63) - 1  # a limit that nothing exceeds


class WholeSetCounts:
    """Counts what the rules need of all pairs, and looks it up part by part.

    Call ``add``, then ``finish``, then ``of_part``.

    Args:
        directory: an existing folder for the tables; it is the caller's to remove.
        memory: bytes for DuckDB, at most.

    Raises:
        InputError: if duckdb or pyarrow is missing.
    """

    def __init__(self, directory: Path, memory: int = 2 << 30) -> None:
        try:
            import duckdb
            import pyarrow
        except ImportError:
            raise InputError(
                "counts of the whole set need duckdb and pyarrow",
                remedy="pip install 'align-keras[data]'",
                setting="rules",
            ) from None
        self._arrow = pyarrow
        self._database = duckdb.connect(str(directory / "counts.duckdb"))
        self._database.execute(f"SET memory_limit = '{memory >> 20}MiB'")
        spilled = str(directory / "spilled").replace("'", "''")
        self._database.execute(f"SET temp_directory = '{spilled}'")
        # Pairs have numbers; keeping their order besides would take memory.
        self._database.execute("SET preserve_insertion_order = false")
        self._database.execute(
            "CREATE TABLE pairs (part INTEGER, pair BIGINT, row_number BIGINT, caption INTEGER, "
            "image VARCHAR, text VARCHAR)"
        )
        self._count = 0

    def __enter__(self) -> "WholeSetCounts":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, pairs: Iterable[tuple]) -> None:
        """Adds pairs: the number of their part, then what ``Preparation.pairs`` yields."""
        pairs = iter(pairs)
        while batch := list(itertools.islice(pairs, _BATCH)):
            parts, rows, captions, images, words = zip(*batch, strict=True)
            table = self._arrow.table(
                {
                    "part": parts,
                    "pair": range(self._count, self._count + len(batch)),
                    "row_number": rows,
                    "caption": captions,
                    "image": images,
                    "text": [" ".join(unigrams) for unigrams in words],
                }
            )
            self._count += len(batch)
            self._database.register("batch", table)
            self._database.execute("INSERT INTO pairs SELECT * FROM batch")

    def finish(self, rules: filters.Rules) -> None:
        """Counts, and marks the pairs beyond a limit of ``rules``."""

        def limit(value: int | None) -> int:
            return _NONE if value is None else value

        shared, crowded = rules.max_images_per_caption, rules.max_captions_per_image
        self._database.execute(_LIMITS.format(shared=limit(shared), crowded=limit(crowded)))
        if (cutoff := self._cutoff(rules.frequent_ngrams)) is None:
            self._database.execute("CREATE TABLE rare_pairs (pair BIGINT)")
        else:
            self._database.execute(_RARE.format(count=cutoff.count, room=cutoff.room))
        self._database.execute(_FLAGS)
        self._database.execute("DROP TABLE pairs CASCADE")

    def _cutoff(self, most: int | None) -> filters.Cutoff | None:
        if most is None:
            return None
        self._database.execute(_NGRAMS)
        histogram = "SELECT n, count(*) FROM counted GROUP BY n"
        return filters.cutoff(dict(self._database.execute(histogram).fetchall()), most)

    def of_part(self, part: int) -> Iterator[tuple[int, int, filters.Counts]]:
        """The counts of the pairs of a part that exceed a limit, as ``Preparation.kept`` takes."""
        result = self._database.cursor().execute(
            f"SELECT row_number, caption, images, texts, rare FROM flags WHERE part = {part} "
            "ORDER BY pair"
        )
        while rows := result.fetchmany(_FLAGS_READ):
            for row, caption, *counts in rows:
                yield row, caption, filters.Counts(*counts)
