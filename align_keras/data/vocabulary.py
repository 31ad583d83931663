"""A WordPiece vocabulary from the training captions, as the paper builds its own (sec. 5)."""

import os

import tensorflow as tf
import tokenizers

from align_keras.preprocessor import CLS, PAD, SEP, UNKNOWN

MASK = "[MASK]"


def train_vocabulary(captions, size, min_frequency=2):
    """Trains a lower-cased WordPiece vocabulary.

    Args:
        captions: an iterable of strings.
        size: word pieces at most, special ones included: 100,000 in the paper.
        min_frequency: how often a piece must occur to be kept.

    Returns:
        A list of pieces, BERT's special ones first ([PAD] is 0). Few captions give fewer
        than ``size``.

    Raises:
        ValueError: if the captions hold no word at all.
    """
    trainer = tokenizers.BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(
        captions,
        vocab_size=size,
        min_frequency=min_frequency,
        limit_alphabet=min(1000, size // 2),
        special_tokens=[PAD, UNKNOWN, CLS, SEP, MASK],
        show_progress=False,
    )
    ids = trainer.get_vocab()
    if len(ids) <= 5:
        raise ValueError("--train-data: the captions hold no word to make a vocabulary from")
    return sorted(ids, key=ids.get)


def write_vocabulary(vocabulary, path):
    """Writes a BERT ``vocab.txt``: one piece a line."""
    partial = f"{path}.partial"
    with tf.io.gfile.GFile(partial, "w") as file:
        file.write("\n".join(vocabulary) + "\n")
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    tf.io.gfile.rename(partial, path, overwrite=True)
