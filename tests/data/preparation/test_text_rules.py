"""SQL filters a table of texts with the same result, byte by byte, as Python pair by pair."""

import json
import random

import duckdb
import pyarrow
import pyarrow.parquet
import pytest
from conftest import SHARED

from align_keras.data import paper_rules
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.table_examples import TableExamples
from align_keras.data.preparation import counting, filters, plain_texts, single_machine, text_rules
from align_keras.data.preparation.judging import Preparation
from align_keras.errors import InputError

# Pieces of text on which Python, DuckDB, RE2 and JSON may differ. The first ones are common words,
# and the last ones are long.
_PIECES = [
    *("dog", "the", "Red", "a b", " ", " ", "-", ".", "'s", "_", "2"),
    *(
        "naïve",
        "CAFÉ",
        "\u039f\u03a3 \u03a3",
        "İstanbul",
        "ẞ",
        "ǅ",
        "\u212a",
        "\u212b",
        "\u017f",
        "ﬁ",
        "e\u0301",
        "Ⅷ",
        "①",
    ),
    *("\u00a0", "\u2028", "\u3000", "\x1c", "\x85", "\u200b", "\ufeff", "\0", "\t", "\n", "\r\n"),
    *("\x7f", "\x01", '"', "\\", "\\n", "'", "[", "]", "(", "['a', 'b']", '["x y z", 1]', "%s"),
    *(
        "\ufffd",
        "\uffff",
        "😀",
        "\U0001d49c",
        "\U00010400",
        "\u0345",
        "ª",
        "²",
        "·",
        "\u0131",
        "Ა",
        "ꭰ",
    ),
    *("<image>", "https://x.org/?a=b&c", "z" * 30, "long " * 300),
]


def odd_texts(count, seed=0):
    """Captions and images of random pieces and random characters, or None."""
    rng = random.Random(seed)
    codes = [*range(0xD800), *range(0xE000, 0x110000)]

    def text():
        drawn = [chr(rng.choice(codes)) for _ in range(2)] if rng.random() < 0.2 else _PIECES
        size = rng.randrange(1 << rng.randrange(1, 5))
        return "".join(
            rng.choice(drawn if rng.random() < 0.3 else _PIECES[:11])
            + (" " if rng.random() < 0.6 else "")
            for _ in range(size)
        )

    def image():
        kind = rng.random()
        name = f"https://host/{rng.randrange(count // 3)}.jpg"
        return None if kind < 0.01 else text() if kind < 0.05 else name

    captions = [None if rng.random() < 0.01 else text() for _ in range(count)]
    # Many images share some of the alt-texts.
    captions = [rng.choice(captions[:40]) if rng.random() < 0.3 else own for own in captions]
    return [image() for _ in captions], captions


def write(path, images, captions):
    table = pyarrow.table({"image": images, "caption": captions})
    pyarrow.parquet.write_table(table, path)
    return str(path)


def prepare(table, output, rules, seed=0, by_sql=True):
    """Filters the table; returns the contents of the written files by name."""
    preparation = Preparation(TableExamples(table), rules, seed, table_only=True)
    assert text_rules.can_judge(preparation) == by_sql
    single_machine.prepare(preparation, str(output / "t"), 4_096)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def check_equal(table, folder, rules, monkeypatch, seed=0):
    fast = prepare(table, folder / "sql", rules, seed)
    with monkeypatch.context() as patch:
        patch.setattr(text_rules, "can_judge", lambda _: False)
        slow = prepare(table, folder / "python", rules, seed, by_sql=False)
    assert sorted(fast) == sorted(slow)
    for name in sorted(slow, key="t-checksums.json".__eq__):  # checksums last
        assert fast[name] == slow[name], name
    return json.loads(fast["t-report.json"])


RULES = [
    filters.Rules(max_images_per_caption=10, max_captions_per_image=6, frequent_ngrams=300),
    filters.Rules(1, None, None, None, None),
]


@pytest.mark.parametrize("rules", RULES)
def test_odd_texts_are_judged_as_python_judges_them(rules, tmp_path, monkeypatch):
    table = write(tmp_path / "t.parquet", *odd_texts(1_500))
    report = check_equal(table, tmp_path, rules, monkeypatch, seed=3)
    dropped = {rule["rule"] for rule in report["rules"] if rule["pairs"]}
    assert report["pairs_out"] and {"unusable_row", "few_words"} <= dropped
    if rules.needs_counts:
        assert {"shared_caption", "rare_words", "crowded_image"} <= dropped
    # Lists of captions give more pairs, and SQL handles many of the texts.
    assert report["pairs_in"] > 1_500


@pytest.mark.faults
def test_two_hundred_thousand_odd_texts(tmp_path, monkeypatch):
    table = write(tmp_path / "t.parquet", *odd_texts(200_000, seed=1))
    rules = filters.Rules(max_captions_per_image=6, frequent_ngrams=30_000)
    check_equal(table, tmp_path, rules, monkeypatch)


def test_every_character_is_split_as_python_splits_it():
    texts = plain_texts.plain_texts(duckdb)
    plain = [f"a{own}B {own}c{own} {own}" for own in plain_texts._CHARACTERS]
    sql = f"""
        SELECT t, regexp_extract_all(lower(t), '{texts.unigram}') FROM (SELECT unnest(?) AS t)
        WHERE regexp_matches(t, '{texts.caption}')
    """
    found = duckdb.execute(sql, [plain]).fetchall()
    assert len(found) > 60_000
    assert all(paper_rules.unigrams(text) == words for text, words in found)


def test_words_that_share_a_hash_get_another(tmp_path, monkeypatch):
    own = "CASE WHEN {salt} < 2 THEN length({word})::UBIGINT ELSE hash({word}, {salt}) END"
    monkeypatch.setattr(counting, "_ID", own)
    table = write(tmp_path / "t.parquet", *odd_texts(300))
    check_equal(table, tmp_path, RULES[0], monkeypatch)


def test_an_empty_table_and_one_without_usable_rows(tmp_path, monkeypatch):
    for number, captions in enumerate(([], [None, " "])):
        table = write(tmp_path / f"{number}.parquet", ["a"] * len(captions), captions)
        if not captions:
            schema = pyarrow.schema([("image", "string"), ("caption", "string")])
            pyarrow.parquet.write_table(schema.empty_table(), table)
        report = check_equal(table, tmp_path / str(number), filters.Rules(), monkeypatch)
        assert report["pairs_out"] == 0


def test_texts_that_are_not_utf8_end_the_run_with_the_same_line(tmp_path, monkeypatch):
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(),
        1,
        [None, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xfe")],
    )
    table = write(tmp_path / "t.parquet", ["a.jpg"], broken)
    with pytest.raises(InputError) as fast:
        prepare(table, tmp_path / "sql", filters.Rules())
    monkeypatch.setattr(text_rules, "can_judge", lambda _: False)
    with pytest.raises(InputError) as slow:
        prepare(table, tmp_path / "python", filters.Rules(), by_sql=False)
    assert str(fast.value) == str(slow.value) and "not readable as Parquet" in str(slow.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"select": ("image=a",)},
        {"carry": ("caption2=caption",)},
        {"unsafe": "caption"},
        {"image": "number"},
        {"caption": "number"},
    ],
)
def test_rows_that_need_more_than_two_texts_are_left_to_python(columns, tmp_path):
    table = pyarrow.table({"image": ["a"], "caption": ["b"], "number": [1]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    source = TableExamples(tmp_path / "t.parquet", columns=Columns(**columns))
    assert source.text_columns is None
    assert TableExamples(tmp_path / "t.parquet").text_columns == ("image", "caption")


def test_real_alt_texts_of_the_web(tmp_path, monkeypatch):
    sample = SHARED / "data" / "metadata" / "laion_alt_text_sample.tsv.gz"
    if not sample.exists():
        pytest.skip(f"no shared data at {sample}; odd texts are compared above")
    import gzip

    lines = gzip.decompress(sample.read_bytes()).decode().splitlines()[1::4]
    images, captions = zip(*(line.split("\t") for line in lines), strict=True)
    table = write(tmp_path / "t.parquet", images, captions)
    check_equal(table, tmp_path, filters.Rules(frequent_ngrams=9_000), monkeypatch)
