"""Compares the word pieces of difficult strings with Hugging Face's own tokenizer."""

import random
import unicodedata

import pytest
import tensorflow as tf
import tokenizers
from conftest import SHARED

from align_keras.preprocessing.tokenizer import WordPieceTokenizer, read_vocabulary

VOCABULARY = SHARED / "data" / "metadata" / "bert_base_uncased_vocab.txt"
# Parts of the strings, separated by spaces.
SPACES = "\u00a0 \u1680 \u2000 \u2009 \u2028 \u2029 \u202f \u205f \u3000 \t \n \r"
DROPPED = "\u200b \u200d \ufeff \x00 \x01 \x1f \x7f \u0085 \ue000 \uf8ff \ufffd"
SPECIAL = "[UNK] [MASK] [CLS] [SEP] [PAD] [unk] [UNK [U\u200bNK] ##ing"
LETTERS = "É é e\u0301 ß ẞ İ \u0131 Σ ς ΑΣ ﬁ ™ ² Å ǅ Ⅷ ⓐ ½ 中 日本語 한국어 👍 👩\u200d👧 क्ष ไทย"
MARKS = "\u2013 — “ ” \u2019 … · ، ؟ $ ^ ` | ~ + < > = 's n't U.S.A. http://a.b/c?d=e 3.14 1,000"
WORDS = "word Hello WORLD don't IMG_1234.jpg a the"
LONG = ["x" * 99, "x" * 100, "x" * 101, "a\u00a0" * 60, "é" * 100, "é" * 101, "中" * 120]
PARTS = LONG + " ".join([SPACES, DROPPED, SPECIAL, LETTERS, MARKS, WORDS]).split(" ")


def random_character(rng):
    while True:
        character = chr(rng.choice([rng.randrange(32, 0x250), rng.randrange(0x250, 0x10000)]))
        # Only some libraries know the characters that later versions of Unicode added.
        category = unicodedata.ucd_3_2_0.category(character)
        if category not in ("Cn", "Cs") and category == unicodedata.category(character):
            return character


def make_strings(count):
    rng = random.Random(0)
    return [
        "".join(
            rng.choice(PARTS) + rng.choice(["", "", " "])
            if rng.random() < 0.8
            else random_character(rng)
            for _ in range(rng.randrange(12))
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def vocabulary(pieces):
    if VOCABULARY.exists():
        return read_vocabulary(str(VOCABULARY))
    print(f"no {VOCABULARY}: a vocabulary of scenes")
    return pieces


@pytest.mark.parametrize(
    ("lowercase", "strip_accents"), [(True, None), (False, None), (True, False), (False, True)]
)
def test_twenty_thousand_strings_have_the_reference_ids(lowercase, strip_accents, vocabulary):
    reference = tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(vocabulary)},
        lowercase=lowercase,
        strip_accents=strip_accents,
    )
    own = WordPieceTokenizer(vocabulary, lowercase, strip_accents)
    strings = make_strings(20_000 if lowercase and strip_accents is None else 2_000)
    found = own.tokenize(tf.constant(strings)).to_list()
    encoded = reference.encode_batch(strings, add_special_tokens=False)
    wrong = [
        (ascii(string), expected.tokens, [vocabulary[index] for index in ids])
        for string, expected, ids in zip(strings, encoded, found, strict=True)
        if expected.ids != ids
    ]
    assert not wrong, wrong[:3]
