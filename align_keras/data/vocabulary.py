"""A WordPiece vocabulary from the training captions, as the paper builds its own (sec. 5)."""

import collections
from collections.abc import Iterable, Mapping

import tokenizers

from align_keras.errors import InputError
from align_keras.preprocessing.tokenizer import CLS, MASK, PAD, SEP, UNKNOWN

# Characters of a vocabulary at most: captions of the web hold thousands.
_MAX_ALPHABET = 1_000


def train_vocabulary(captions: Iterable[str], size: int, min_frequency: int = 2) -> list[str]:
    """Trains a lower-cased WordPiece vocabulary.

    Args:
        captions: an iterable of strings.
        size: word pieces at most, special ones included: 100,000 in the paper.
        min_frequency: how often a piece must occur to be kept.

    Returns:
        A list of pieces, BERT's special ones first ([PAD] is 0). Few captions give fewer
        than ``size``.

    Raises:
        InputError: if the captions hold no word at all.
    """
    trainer = tokenizers.BertWordPieceTokenizer(lowercase=True)
    words = _count_words(captions, trainer)
    if not words:
        raise InputError("the captions contain no word to build a vocabulary from")
    kept, alphabet = _limit_alphabet(words, min(_MAX_ALPHABET, max(1, size // 4)))
    trainer.train_from_iterator(
        # Sorted, and with every character given an id beforehand: the trainer meets words in
        # the order of a hash table, and breaks ties by the ids that it hands out.
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
    """How often each normalised word occurs."""
    words: collections.Counter[str] = collections.Counter()
    for caption in captions:
        normalized = trainer.normalizer.normalize_str(caption)
        words.update(word for word, _ in trainer.pre_tokenizer.pre_tokenize_str(normalized))
    return words


def _limit_alphabet(words: Mapping[str, int], limit: int) -> tuple[dict[str, int], list[str]]:
    """Drops words with a rare character; the others, and their pieces of one character."""
    characters: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        characters.update(dict.fromkeys(set(word), count))
    kept = set(sorted(characters, key=lambda c: (-characters[c], c))[:limit])
    words = {word: count for word, count in words.items() if kept.issuperset(word)}
    first = {word[0] for word in words}
    later = {f"##{character}" for word in words for character in word[1:]}
    return words, sorted(first) + sorted(later)
