"""The definition of an empty caption, in Python and in TensorFlow's regular expressions."""

import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from align_keras.data import paper_rules


def test_python_and_tensorflow_agree_on_what_is_empty():
    # Only one side knows the characters that later versions of Unicode added.
    letters = [
        chr(code)
        for code in range(1, sys.maxunicode + 1)
        if unicodedata.ucd_3_2_0.category(chr(code)) == unicodedata.category(chr(code))
        and unicodedata.category(chr(code)) not in ("Cn", "Cs")
    ]
    found = tf.strings.regex_full_match(letters, paper_rules.EMPTY_CAPTION).numpy()
    expected = np.array([not paper_rules.has_words(letter) for letter in letters])
    wrong = [hex(ord(letters[place])) for place in np.flatnonzero(found != expected)]
    assert not wrong, wrong[:10]


@pytest.mark.parametrize(
    "caption", ["", " \t\r\n", "\u3000\u00a0\u2009", "\u200b\ufeff", "\x00\x1f", "\u0301", "\ufffd"]
)
def test_captions_of_which_nothing_is_left(caption):
    assert not paper_rules.has_words(caption)


@pytest.mark.parametrize("caption", ["a", " . ", "中", "\u200bdog", "👍", "1"])
def test_captions_with_words(caption):
    assert paper_rules.has_words(caption)
