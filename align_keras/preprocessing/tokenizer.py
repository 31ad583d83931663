"""BERT's WordPiece tokenizer in TensorFlow ops; the ids equal those of Hugging Face's tokenizer."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from align_keras import files, lazy, paths
from align_keras.errors import InputError, MissingInputError, Place

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_text as tf_text
else:
    # Vocabularies are read before TensorFlow loads.
    tf = lazy.Module("tensorflow")
    tf_text = lazy.Module("tensorflow_text")

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"

# Characters that BERT's cleaning drops: control and format characters and the replacement
# character. Tab and line ends count as white space. Private-use characters are dropped as well.
_DROPPED = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\x{fffd}\p{Cf}]"
_PRIVATE = r"\p{Co}"
# RE2's \s matches only ASCII.
_UNICODE_SPACE = r"\p{Z}"
# Characters that BERT treats as separate words: punctuation, ASCII symbols and CJK ideographs.
_PUNCTUATION = r"\p{P}$+<=>\^`|~"
_IDEOGRAPHS = (
    r"\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{20000}-\x{2a6df}\x{2a700}-\x{2b73f}"
    r"\x{2b740}-\x{2b81f}\x{2b820}-\x{2ceaf}\x{f900}-\x{faff}\x{2f800}-\x{2fa1f}"
)
#: Maximum number of characters in a word; BERT replaces longer words by [UNK].
WORD_LIMIT = 100
_WORD_END = rf"[\s{_PUNCTUATION}{_IDEOGRAPHS}]"
# Every long word is part of such a run. Words are examined one by one only if there is one.
_LONG_RUN = rf"(?s).*\S{{{WORD_LIMIT + 1}}}.*"
# First character of the words that stand for special pieces inside a caption. It is a private-use
# character; such characters in the caption itself are replaced before.
_MARK = "\ue000"


_REMEDY = "give a BERT vocab.txt"


def read_vocabulary(path: str | os.PathLike) -> list[str]:
    """Reads a BERT ``vocab.txt``: one word piece per line, in the order of their ids.

    Raises:
        MissingInputError: if the file does not exist.
        InputError: if it is not UTF-8, or ``check_vocabulary`` rejects it.
    """
    place, file = Place(os.fspath(path)), paths.path_of(path)
    if not file.is_file():
        raise MissingInputError("no such file", place, _REMEDY)
    try:
        pieces = file.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise InputError("not UTF-8", place, _REMEDY) from None
    pieces = [piece.rstrip("\r") for piece in pieces]
    while pieces and not pieces[-1]:
        pieces.pop()
    check_vocabulary(pieces, place)
    return pieces


def check_vocabulary(pieces: Sequence[str], place: Place | None = None) -> None:
    """Checks that BERT's special pieces exist, no piece is repeated, and none has a line break.

    Args:
        pieces: word pieces in the order of their ids.
        place: place of the word pieces, for the message.

    Raises:
        InputError: if a check fails.
    """
    missing = [piece for piece in (PAD, UNKNOWN, CLS, SEP) if piece not in pieces]
    if missing:
        raise InputError(f"no {', '.join(missing)} among the word pieces", place, _REMEDY)
    if len(set(pieces)) < len(pieces):
        twice = next(piece for index, piece in enumerate(pieces) if piece in pieces[:index])
        raise InputError(f"{twice!r} occurs twice among the word pieces", place, _REMEDY)
    # Such pieces would change in a vocab.txt, which presets and runs keep.
    if broken := [piece for piece in pieces if "\n" in piece or piece.endswith("\r")]:
        raise InputError(f"the word piece {broken[0]!r} contains a line break", place, _REMEDY)


def write_vocabulary(pieces: Iterable[str], path: str) -> None:
    """Writes a BERT ``vocab.txt``, completely or not at all: one piece per line."""
    files.write_whole(path, "\n".join(pieces) + "\n")


class WordPieceTokenizer:
    """Splits captions into word pieces.

    TF Text's own lower-casing applies NFKC and case folding ("™" becomes "tm", "ß" becomes "ss").
    BERT does not, and one in 185 real alt-texts would get other ids. The text is therefore
    normalised here, and TF Text only splits it.

    Args:
        vocabulary: word pieces in the order of their ids.
        lowercase: whether to lower the case.
        strip_accents: whether to strip accents; None for the value of ``lowercase``, as in BERT.
    """

    def __init__(
        self, vocabulary: Iterable[str], lowercase: bool = True, strip_accents: bool | None = None
    ) -> None:
        self.vocabulary = list(vocabulary)
        self.lowercase = lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        special = {piece: _MARK + piece[1:-1] for piece in (PAD, CLS, SEP, MASK)}
        if lowercase:
            special = {piece: mark.lower() for piece, mark in special.items()}
        self._cutter = tf_text.FastBertTokenizer(
            [special.get(piece, piece) for piece in self.vocabulary],
            # In bytes; the characters are counted before.
            max_bytes_per_word=4 * WORD_LIMIT,
            token_out_type=tf.int32,
            unknown_token=UNKNOWN,
            lower_case_nfd_strip_accents=False,
            no_pretokenization=False,
        )
        self._traced_rows: dict[tuple[int, bool], Callable] = {}

    def normalize(self, captions: "tf.Tensor") -> "tf.Tensor":
        """Cleans captions as BERT does; marks special pieces, and long words as unknown.

        Args:
            captions: strings, of any shape.

        Returns:
            Strings of the same shape.
        """
        replace = tf.strings.regex_replace
        # Replaced by a character that is dropped later, so that only special pieces of the original
        # caption get the mark.
        text = replace(captions, _PRIVATE, "\x01")
        # "[UNK]" becomes a word that is not in the vocabulary.
        text = replace(text, r"\[(PAD|UNK|CLS|SEP|MASK)\]", rf" {_MARK}\1 ")
        text = replace(replace(text, _DROPPED, ""), _UNICODE_SPACE, " ")
        if self.strip_accents:
            text = replace(tf_text.normalize_utf8(text, "NFD"), r"\p{Mn}", "")
        if self.lowercase:
            # A capital sigma at the end of a word would become the final form.
            text = tf.strings.lower(replace(text, "\u03a3", "\u03c3"), encoding="utf-8")
        return tf.cond(
            tf.reduce_any(tf.strings.regex_full_match(text, _LONG_RUN)),
            lambda: tf.reshape(_traced_mark()(tf.reshape(text, [-1])), tf.shape(text)),
            lambda: text,
        )

    def tokenize(self, captions: "tf.Tensor") -> "tf.RaggedTensor":
        """Splits captions into word pieces, without [CLS] and [SEP].

        Args:
            captions: strings, ``(batch,)``. A batch is many times faster than single captions.

        Returns:
            Ids, int32, a ragged tensor ``(batch, None)``.
        """
        return self._cutter.tokenize(self.normalize(captions))

    def rows(
        self, captions: "tf.Tensor", length: int, pad_to_longest: bool = False
    ) -> "dict[str, tf.Tensor]":
        """Splits captions into rows of word pieces: trimmed, with [CLS] and [SEP], and padded.

        Args:
            captions: strings, ``(batch,)``.
            length: maximum length of a row, at least 3.
            pad_to_longest: whether rows are only as long as the longest caption needs.

        Returns:
            A dict of ``token_ids``, ``segment_ids`` and ``padding_mask``, int32, ``(batch,
            length)``.
        """
        if not tf.executing_eagerly():
            return self._rows(captions, length, pad_to_longest)
        # Op by op, a caption takes three times as long.
        key = length, pad_to_longest
        if key not in self._traced_rows:
            self._traced_rows[key] = tf.function(
                lambda batch: self._rows(batch, *key),
                input_signature=[tf.TensorSpec([None], tf.string)],
                autograph=False,
            )
        return self._traced_rows[key](captions)

    def _rows(self, captions, length, pad_to_longest):
        ids = {piece: self.vocabulary.index(piece) for piece in (CLS, SEP, PAD)}
        pieces = self.tokenize(captions)[:, : length - 2]
        ends = [tf.fill([tf.shape(captions)[0], 1], ids[piece]) for piece in (CLS, SEP)]
        pieces = tf.concat([ends[0], pieces, ends[1]], axis=1)
        shape = None if pad_to_longest else [None, length]
        token_ids = pieces.to_tensor(default_value=ids[PAD], shape=shape)
        shape = [captions.shape[0], None if pad_to_longest else length]
        token_ids = tf.ensure_shape(token_ids, shape)
        lengths = tf.cast(pieces.row_lengths(), tf.int32)
        padding_mask = tf.sequence_mask(lengths, tf.shape(token_ids)[1], dtype=tf.int32)
        return {
            "token_ids": token_ids,
            "segment_ids": tf.zeros_like(token_ids),
            "padding_mask": tf.ensure_shape(padding_mask, shape),
        }


@functools.cache
def _traced_mark():
    """``_mark_long_words``, traced once per process."""
    spec = tf.TensorSpec([None], tf.string)
    return tf.function(_mark_long_words, input_signature=[spec], autograph=False)


def _mark_long_words(text):
    """Replaces words of more than ``WORD_LIMIT`` characters by ``_MARK``, in ``(captions,)``."""
    # A single expression for such a word would exceed RE2's memory limit.
    ragged = tf_text.regex_split(text, _WORD_END, _WORD_END)
    # Works on flat values: `tf.where` and `reduce_join` on a ragged tensor are a thousand ops,
    # which every iterator over a data set of captions would set up again.
    words = ragged.flat_values
    words = tf.where(tf.strings.length(words, "UTF8_CHAR") > WORD_LIMIT, _MARK, words)
    return tf.strings.unsorted_segment_join(words, ragged.value_rowids(), ragged.nrows())
