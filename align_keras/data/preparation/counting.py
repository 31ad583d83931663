"""Counts over the unfiltered data on one machine, by DuckDB with bounded memory and disk space.

``beam_pipeline`` computes the same counts on many machines.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from align_keras.data.preparation import filters
from align_keras.errors import InputError

_BATCH = 20_000  # pairs inserted at a time
_FLAGS_READ = 10_000
_MEMORY = 1 << 30  # bytes of memory for DuckDB
# Number of leading hexadecimal digits that group ties.
_TIE_DIGITS = 4

# Few texts or images occur in more pairs than their limit. They are found by hashes, which are fast
# to count, and then counted exactly. Pairs are counted once: an image that has the same alt-text
# twice counts as one, for the text and for the image.
_LIMIT = """
CREATE TABLE {table} AS
    SELECT {field}, count(*) AS {counted} FROM (
        SELECT DISTINCT image, text FROM usable WHERE hash({field}) IN (
            SELECT hash({field}) FROM usable GROUP BY hash({field}) HAVING count(*) > {limit}
        )
    ) GROUP BY {field} HAVING {counted} > {limit};
"""
_LIMITS = (
    ("shared", "text", "images", "max_images_per_caption"),
    ("crowded", "image", "texts", "max_captions_per_image"),
)
# A 64-bit id stands for a word, so that a bigram is two numbers. No two words share an id: see
# _word_ids.
_ID = "hash({word}, {salt})"
_WORDS = """
CREATE OR REPLACE TABLE words AS
    SELECT word, {id} AS id, count(*) AS n
    FROM (SELECT unnest(string_split(text, ' ')) AS word FROM usable WHERE text <> '')
    GROUP BY word;
"""
# The bigrams of filters.ngrams.
_BIGRAMS = """
CREATE VIEW split AS
    SELECT pair, [{id} FOR word IN string_split(text, ' ')] AS ids FROM usable WHERE text <> '';
CREATE VIEW unigrams AS SELECT pair, unnest(ids) AS id FROM split;
CREATE VIEW bigrams AS
    SELECT pair, unnest(ids[:-2]) AS first, unnest(ids[2:]) AS second FROM split;
CREATE TABLE two_words AS SELECT first, second, count(*) AS n FROM bigrams GROUP BY first, second;
"""
_HISTOGRAM = """
SELECT n, count(*) FROM (SELECT n FROM words UNION ALL SELECT n FROM two_words) GROUP BY n
"""
# Ordered by filters.tie_break. A unigram has no second word.
_TIES = """
CREATE TABLE ties AS
    SELECT id AS first, NULL AS second, md5(word) AS tie FROM words WHERE n = {count}
    UNION ALL
    SELECT first, second, md5(one.word || ' ' || two.word)
    FROM two_words JOIN words AS one ON one.id = first JOIN words AS two ON two.id = second
    WHERE two_words.n = {count};
"""
_RANGES = f"SELECT left(tie, {_TIE_DIGITS}) AS digits, count(*) FROM ties GROUP BY digits"
_BOUND = f"SELECT tie FROM ties WHERE left(tie, {_TIE_DIGITS}) = ? ORDER BY tie LIMIT 1 OFFSET ?"
_RARE = """
CREATE TABLE rare AS
    SELECT id AS first, NULL AS second FROM words WHERE n < {count}
    UNION ALL SELECT first, second FROM two_words WHERE n < {count}
    UNION ALL SELECT first, second FROM ties WHERE tie >= '{bound}';
CREATE TABLE rare_pairs AS
    SELECT DISTINCT pair FROM (
        SELECT pair FROM unigrams
        SEMI JOIN (SELECT first AS id FROM rare WHERE second IS NULL) USING (id)
        UNION ALL
        SELECT pair FROM bigrams SEMI JOIN rare USING (first, second)
    );
DROP TABLE ties;
"""
_NO_RARE_PAIRS = "CREATE TABLE rare_pairs (pair BIGINT)"
_FLAGS = """
CREATE TABLE flags AS
    SELECT pair, coalesce(images, 0) AS images, coalesce(texts, 0) AS texts,
        rare_pairs.pair IS NOT NULL AS rare
    FROM usable LEFT JOIN shared USING (text) LEFT JOIN crowded USING (image)
        LEFT JOIN rare_pairs USING (pair)
    WHERE images IS NOT NULL OR texts IS NOT NULL OR rare_pairs.pair IS NOT NULL;
"""
# The places of the flagged pairs.
_PLACES = """
CREATE TABLE places AS
    SELECT part, row_number, caption, images, texts, rare FROM flags JOIN pairs USING (pair);
DROP TABLE pairs CASCADE;
"""
_NONE = (1 << 63) - 1  # a limit that nothing exceeds


def open_database(directory: Path, memory: int = _MEMORY) -> Any:
    """Opens a DuckDB connection to a new file in a folder.

    Args:
        directory: an existing folder, also used for data that does not fit into memory.
        memory: maximum memory of DuckDB, in bytes.

    Raises:
        InputError: if duckdb or pyarrow is missing.
    """
    try:
        import duckdb
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(
            "counts over the unfiltered data need duckdb and pyarrow",
            remedy="pip install 'align-keras[data]'",
            setting="rules",
        ) from None
    database = duckdb.connect(str(directory / "counts.duckdb"))
    database.execute(f"SET memory_limit = '{memory >> 20}MiB'")
    spilled = str(directory / "spilled").replace("'", "''")
    database.execute(f"SET temp_directory = '{spilled}'")
    # Pairs have numbers, so their order need not be kept, which would take memory.
    database.execute("SET preserve_insertion_order = false")
    # Compressing tables that are read two or three times is not worth the time.
    database.execute("SET force_compression = 'uncompressed'")
    return database


def flag_pairs(database: Any, rules: filters.Rules) -> None:
    """Creates the table ``flags`` of the pairs that exceed a limit of ``rules``.

    Args:
        database: a database with a table ``pairs`` of ``pair`` (a number), ``image`` and ``text``:
            the unigrams joined by spaces, or NULL for a pair that does not count.
        rules: the limits.
    """
    database.execute("CREATE VIEW usable AS SELECT * FROM pairs WHERE text IS NOT NULL")
    for table, field, counted, setting in _LIMITS:
        limit = getattr(rules, setting)
        limit = _NONE if limit is None else limit
        database.execute(_LIMIT.format(table=table, field=field, counted=counted, limit=limit))
    most = rules.frequent_ngrams
    cutoff = None if most is None else _count_ngrams(database, most)
    if cutoff is None:
        database.execute(_NO_RARE_PAIRS)
    else:
        database.execute(_TIES.format(count=cutoff.count))
        ranges = dict(database.execute(_RANGES).fetchall())
        place = filters.place_of_bound(ranges, cutoff)
        (bound,) = database.execute(_BOUND, place).fetchone()
        database.execute(_RARE.format(count=cutoff.count, bound=bound))
    database.execute(_FLAGS)


def _count_ngrams(database: Any, most: int) -> filters.Cutoff | None:
    database.execute(_BIGRAMS.format(id=_word_ids(database)))
    return filters.cutoff(dict(database.execute(_HISTOGRAM).fetchall()), most)


def _word_ids(database: Any) -> str:
    """Counts the words; returns the SQL of a word's id, a hash without collisions between words."""
    for salt in itertools.count():
        own = _ID.format(word="word", salt=salt)
        database.execute(_WORDS.format(id=own))
        words, ids = database.execute("SELECT count(*), count(DISTINCT id) FROM words").fetchone()
        if words == ids:
            return own
    raise AssertionError


class WholeSetCounts:
    """Counts what the rules need to know about all pairs, and returns it part by part.

    Call ``add``, then ``finish``, then ``of_part``.

    Args:
        directory: an existing folder for the tables; the caller must remove it.
        memory: maximum memory of DuckDB, in bytes.

    Raises:
        InputError: if duckdb or pyarrow is missing.
    """

    def __init__(self, directory: Path, memory: int = _MEMORY) -> None:
        self._database = open_database(directory, memory)
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
        """Adds pairs: each is the number of its part, then the values of ``Preparation.pairs``."""
        import pyarrow

        pairs = iter(pairs)
        while batch := list(itertools.islice(pairs, _BATCH)):
            parts, rows, captions, images, words = zip(*batch, strict=True)
            table = pyarrow.table(
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
        """Counts all pairs, and marks those that exceed a limit of ``rules``."""
        flag_pairs(self._database, rules)
        self._database.execute(_PLACES)

    def of_part(self, part: int) -> Iterator[tuple[int, int, filters.Counts]]:
        """Yields the counts of a part's pairs that exceed a limit, for ``Preparation.kept``."""
        result = self._database.cursor().execute(
            f"SELECT row_number, caption, images, texts, rare FROM places WHERE part = {part} "
            "ORDER BY row_number, caption"
        )
        while rows := result.fetchmany(_FLAGS_READ):
            for row, caption, *counts in rows:
                yield row, caption, filters.Counts(*counts)
