"""Builds a WordPiece vocabulary from the training captions, as in the paper (sec. 5)."""

import collections
from collections.abc import Iterable, Mapping

import tokenizers

from align_keras.errors import InputError
from align_keras.preprocessing.tokenizer import CLS, MASK, PAD, SEP, UNKNOWN

# Maximum number of characters in the vocabulary: captions from the web contain thousands.
_MAX_ALPHABET = 1_000


def train_vocabulary(captions: Iterable[str], size: int, min_frequency: int = 2) -> list[str]:
    """Trains a lower-cased WordPiece vocabulary.

    Args:
        captions: an iterable of strings.
        size: maximum number of word pieces, including the special ones: 100,000 in the paper.
        min_frequency: minimum number of occurrences of a word piece.

    Returns:
        A list of word pieces, with BERT's special ones first ([PAD] is 0). Few captions give fewer
        than ``size`` pieces.

    Raises:
        InputError: if the captions contain no word.
    """
    trainer = tokenizers.BertWordPieceTokenizer(lowercase=True)
    words = _count_words(captions, trainer)
    if not words:
        raise InputError("the captions contain no word to build a vocabulary from")
    kept, alphabet = _limit_alphabet(words, min(_MAX_ALPHABET, max(1, size // 4)))
    trainer.train_from_iterator(
        # The words are sorted, and every character gets an id beforehand. Otherwise the trainer
        # would visit words in the order of a hash table, and break ties by ids assigned in that
        # order.
        (" ".join([word] * count) for word, count in sorted(kept.items())),
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=[PAD, UNKNOWN, CLS, SEP, MASK, *alphabet],
        show_progress=False,
    )
    ids = trainer.get_vocab()
    return sorted(ids, key=ids.get)


def _count_words(
    captions: Iterable[str], trainer: tokenizers.BertWordPieceTokenizer
) -> collections.Counter[str]:
    """The number of occurrences of each normalised word."""
    words: collections.Counter[str] = collections.Counter()
    for caption in captions:
        normalized = trainer.normalizer.normalize_str(caption)
        words.update(word for word, _ in trainer.pre_tokenizer.pre_tokenize_str(normalized))
    return words


def _limit_alphabet(words: Mapping[str, int], limit: int) -> tuple[dict[str, int], list[str]]:
    """Drops words with rare characters; returns the other words and their one-character pieces."""
    characters: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        characters.update(dict.fromkeys(set(word), count))
    kept = set(sorted(characters, key=lambda c: (-characters[c], c))[:limit])
    words = {word: count for word, count in words.items() if kept.issuperset(word)}
    first = {word[0] for word in words}
    later = {f"##{character}" for word in words for character in word[1:]}
    return words, sorted(first) + sorted(later)
