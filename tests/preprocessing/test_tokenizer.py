import gzip
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from conftest import SHARED

from align_keras.data import vocabulary
from align_keras.preprocessing.tokenizer import WordPieceTokenizer

TEXTS = [
    "FTD® Angel Wings™, 149m² № 5 weiß ﬁne ½",
    "Crème BRÛLÉE İstanbul ΟΔΥΣΣΕΥΣ Σ",
    "漢字とカナ 東京 photo",
    "a\u00adb\u200dc\ufeff tab\tnew\nline\r\x07 nul\x00 \ufffd \uf0a8 \ue000",
    "[SEP] in [MASK]ed text [PAD][cls]",
    "don't, $5 <b>x^2</b> `~|",
    "",
    "x" * 100 + " " + "y" * 101,
    "ж" * 100 + "." + "ж" * 101 + "-z",
    "🙂 emoji 👩‍👩‍👧 flags 🇩🇪",
]


def reference(pieces, **options):
    return tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(pieces)}, **options
    )


@pytest.fixture(scope="module")
def text_pieces():
    """Word pieces: every character of the texts, and some of their words."""
    words = [word for text in TEXTS for word in text.split()] * 2
    pieces = vocabulary.train_vocabulary(words, 600)
    cased = ["FTD", "Wings", "##™", "İ", "##st", "ΟΔ", "²", "##²", "x", "##x", "ж", "##ж", "Crème"]
    return pieces + [piece for piece in cased if piece not in pieces]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
def test_ids_are_those_of_the_reference(lowercase, strip_accents, text_pieces):
    options = {"lowercase": lowercase, "strip_accents": strip_accents}
    expected = reference(text_pieces, **options).encode_batch(TEXTS)
    rows = WordPieceTokenizer(text_pieces, **options).tokenize(tf.constant(TEXTS)).to_list()
    for text, row, encoding in zip(TEXTS, rows, expected, strict=True):
        assert row == encoding.ids[1:-1], text


def test_every_character_is_treated_as_by_the_reference(text_pieces):
    # Characters that the reference's tables (Unicode 8 to 14) do not contain are left out.
    def known(character):
        category = unicodedata.category(character)
        return category != "Cn" and not (category[0] in "PM" and character > "\u05ff")

    characters = [chr(code) for code in (*range(1, 0xD800), *range(0xE000, 0x20000))]
    texts = [f"a{c}b {c}" for c in characters if known(c) and unicodedata.category(c) != "Cf"]
    assert len(texts) > 80_000
    rows = WordPieceTokenizer(text_pieces).tokenize(tf.constant(texts)).to_list()
    encodings = reference(text_pieces, lowercase=True).encode_batch(texts)
    wrong = [
        text
        for text, row, encoding in zip(texts, rows, encodings, strict=True)
        if row != encoding.ids[1:-1]
    ]
    assert len(wrong) <= 5, wrong


def test_real_alt_texts_get_the_ids_of_the_reference():
    directory = SHARED / "data" / "metadata"
    if not directory.exists():
        pytest.skip(f"no shared data at {directory}; written texts are compared above")
    pieces = (directory / "bert_base_uncased_vocab.txt").read_text().rstrip("\n").split("\n")
    with gzip.open(directory / "laion_alt_text_sample.tsv.gz", "rt", encoding="utf-8") as file:
        texts = [line.rstrip("\n").partition("\t")[2] for line in file]
    assert len(texts) > 9_000
    rows = WordPieceTokenizer(pieces).tokenize(tf.constant(texts)).to_list()
    encodings = reference(pieces, lowercase=True).encode_batch(texts)
    wrong = [t for t, r, e in zip(texts, rows, encodings, strict=True) if r != e.ids[1:-1]]
    assert not wrong


def test_the_same_in_a_dataset(text_pieces):
    tokenizer = WordPieceTokenizer(text_pieces)
    dataset = tf.data.Dataset.from_tensors(TEXTS).map(tokenizer.tokenize)
    (inside,) = list(dataset)
    outside = tokenizer.tokenize(tf.constant(TEXTS))
    np.testing.assert_array_equal(inside.flat_values, outside.flat_values)
    np.testing.assert_array_equal(inside.row_splits, outside.row_splits)
