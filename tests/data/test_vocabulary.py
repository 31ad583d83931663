import pytest

from align_keras.data import vocabulary
from align_keras.errors import InputError
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.tokenizer import read_vocabulary, write_vocabulary


def test_vocabulary_holds_special_pieces_first_and_frequent_words_whole(tmp_path):
    captions = ["A red circle on a grey ground"] * 5 + ["one blue ring"] * 5
    pieces = vocabulary.train_vocabulary(captions, 200)
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"red", "circle", "blue", "ring"} <= set(pieces)
    assert len(set(pieces)) == len(pieces) <= 200
    path = str(tmp_path / "vocab.txt")
    write_vocabulary(pieces, path)
    assert read_vocabulary(path) == pieces
    tokens = AlignPreprocessor(pieces, 8, 8, 6).tokenize(["Red ring"])["token_ids"][0]
    assert [pieces[i] for i in tokens] == ["[CLS]", "red", "ring", "[SEP]", "[PAD]", "[PAD]"]


def test_the_same_captions_give_the_same_vocabulary():
    captions = [f"word{i % 50} thing{i % 7}" for i in range(300)]
    assert vocabulary.train_vocabulary(captions, 80) == vocabulary.train_vocabulary(captions, 80)


def test_captions_without_a_word_are_refused():
    with pytest.raises(InputError, match="^the captions contain no word"):
        vocabulary.train_vocabulary(["", "  "], 100)
