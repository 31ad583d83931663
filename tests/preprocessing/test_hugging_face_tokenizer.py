"""A tokenizer.json that would split captions differently is refused with the setting's name."""

import json

import pytest
import tokenizers
from checkpoints import change

from align_keras import AlignPreprocessor
from align_keras.errors import InputError
from align_keras.preprocessing import hugging_face_tokenizer

CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
CAPTION = {"Sequence": {"id": "A", "type_id": 0}}
SEP = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}


@pytest.fixture
def folder(tmp_path, pieces):
    table = {piece: index for index, piece in enumerate(pieces)}
    tokenizers.BertWordPieceTokenizer(table).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def read(folder, **config):
    return hugging_face_tokenizer.arguments(folder, config)


def test_a_bert_tokenizer_is_read(folder, pieces):
    expected = {"vocabulary": list(pieces), "lowercase": True, "strip_accents": None}
    assert read(folder, vocab_size=len(pieces)) == expected
    # Padding and truncation are the run's choice, so they are ignored; the template is BERT's.
    template = {"type": "TemplateProcessing", "single": [CLS, CAPTION, SEP]}
    padding = {"strategy": {"Fixed": 128}, "direction": "Right"}
    change(folder / "tokenizer.json", post_processor=template, padding=padding)
    assert read(folder) == expected
    change(folder / "tokenizer.json", post_processor=None)
    assert read(folder) == expected
    change(folder / "tokenizer.json", normalizer__lowercase=False, normalizer__strip_accents=True)
    assert read(folder) == {**expected, "lowercase": False, "strip_accents": True}


@pytest.mark.parametrize(
    ("in_file", "settings", "expected"),
    [
        # Expected: what transformers 5.24 reads.
        (True, {"do_lower_case": False}, False),
        (False, {"do_lower_case": True}, True),
        (True, {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, True),
        (False, {"tokenizer_class": "TokenizersBackend"}, False),
        # transformers would lower-case here, although the file says otherwise.
        (False, {"tokenizer_class": "BertTokenizer"}, False),
    ],
)
def test_the_settings_overrule_the_casing_of_the_file(in_file, settings, expected, folder):
    change(folder / "tokenizer.json", normalizer__lowercase=in_file)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read(folder)["lowercase"] is expected


@pytest.mark.parametrize(
    ("values", "column", "problem"),
    [
        ({"model__type": "Unigram"}, "model.type", "'Unigram' is not supported, only WordPiece"),
        ({"model__unk_token": "<unk>"}, "model.unk_token", "'<unk>' is not supported, only [UNK]"),
        ({"model__continuing_subword_prefix": "@@"}, "model.continuing_subword_prefix", "'@@' is"),
        ({"model__max_input_chars_per_word": 50}, "model.max_input_chars_per_word", "50 is not"),
        ({"model__vocab": ["a"]}, "model.vocab", "no table of word pieces and ids"),
        ({"model__vocab": {"a": "0"}}, "model.vocab", "no table of word pieces and ids"),
        ({"model__vocab": {"a": 0}}, "", "no [PAD], [UNK], [CLS], [SEP] among the word pieces"),
        ({"model": None}, "model", "WordPiece is required but missing"),
        ({"normalizer": None}, "normalizer", "BertNormalizer is required but missing"),
        ({"normalizer": {"type": "NFKC"}}, "normalizer.type", "'NFKC' is not supported"),
        ({"normalizer__clean_text": False}, "normalizer.clean_text", "False is not supported"),
        ({"normalizer__handle_chinese_chars": False}, "normalizer.handle_chinese_chars", "False"),
        ({"normalizer__lowercase": "yes"}, "normalizer.lowercase", "'yes' is not supported"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer.type", "'Whitespace' is not"),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": [CLS, CAPTION]}},
            "post_processor.single",
            "another template than [CLS] A [SEP]",
        ),
        (
            {"post_processor": {"type": "RobertaProcessing"}},
            "post_processor.type",
            "'RobertaProcessing' is not supported",
        ),
        (
            {"added_tokens": [{"content": "[DATE]", "id": 900}]},
            "added_tokens",
            "the added token '[DATE]' is not in its vocabulary",
        ),
        (
            {"added_tokens": [{"content": "red", "id": 9}]},
            "added_tokens",
            "the added token 'red' is not one of BERT's",
        ),
    ],
)
def test_what_would_give_other_ids_is_refused(values, column, problem, folder):
    change(folder / "tokenizer.json", **values)
    with pytest.raises(InputError) as raised:
        read(folder)
    assert (raised.value.place.member, raised.value.place.column) == ("tokenizer.json", column)
    assert problem in raised.value.problem


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"do_lower_case": "no"}, "column do_lower_case: 'no' is not supported"),
        ({"tokenize_chinese_chars": False}, "column tokenize_chinese_chars: False is not"),
        ({"do_basic_tokenize": False}, "column do_basic_tokenize: False is not supported"),
        ([], "is not a JSON object"),
    ],
)
def test_settings_that_are_not_supported_are_named(settings, problem, folder):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError) as raised:
        read(folder)
    assert problem in str(raised.value)


def test_more_word_pieces_than_embeddings_are_refused(folder, pieces):
    with pytest.raises(InputError, match=r"word pieces, but config.json has a vocab_size of 99"):
        read(folder, vocab_size=99)
    assert len(read(folder, vocab_size=len(pieces) + 8)["vocabulary"]) == len(pieces)


def test_a_file_that_is_no_json_is_named(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"^tokenizer.json: not JSON \(Expecting"):
        read(folder)


def test_a_word_piece_that_no_vocab_txt_can_hold_is_refused(folder, pieces):
    table = {piece: index for index, piece in enumerate([*pieces, "a\nb"])}
    change(folder / "tokenizer.json", model__vocab=table)
    with pytest.raises(InputError, match=r"'a\\nb' contains a line break"):
        read(folder)
    with pytest.raises(InputError, match=r"'b\\r' contains a line break"):
        AlignPreprocessor([*pieces, "b\r"], 8, 8, 12)
