"""Converts Hugging Face's BERT tokenizer files to arguments of ``AlignPreprocessor``, and back.

``tokenizer.json`` describes the entire tokenizer; older folders have only ``vocab.txt``. As in
transformers, the casing in ``tokenizer_config.json`` takes precedence. If that file does not state
it, this package follows ``tokenizer.json``, while transformers lower-cases.
"""

import os
from typing import Any

import keras_hub
import tokenizers

from align_keras import hub
from align_keras.errors import MissingInputError, Place
from align_keras.preprocessing.tokenizer import (
    CLS,
    MASK,
    PAD,
    SEP,
    UNKNOWN,
    WORD_LIMIT,
    check_vocabulary,
    read_vocabulary,
    write_vocabulary,
)

_TOKENIZER_FILE, _CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_VOCABULARY_FILE = "vocab.txt"
_SPECIAL = (PAD, UNKNOWN, CLS, SEP, MASK)

# The behaviour of ``WordPieceTokenizer`` in terms of tokenizer.json: for each key, the default
# value followed by other allowed values.
_MODEL: dict[str, list] = {
    "type": ["WordPiece"],
    "unk_token": [UNKNOWN],
    "continuing_subword_prefix": ["##"],
    "max_input_chars_per_word": [WORD_LIMIT],
}
_NORMALIZER: dict[str, list] = {
    "type": ["BertNormalizer"],
    "clean_text": [True],
    "handle_chinese_chars": [True],
    "lowercase": [True, False],
    "strip_accents": [None, True, False],
}
# [CLS], the caption, [SEP].
_TEMPLATE = [
    {"SpecialToken": {"id": CLS, "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}},
    {"SpecialToken": {"id": SEP, "type_id": 0}},
]
# The same settings under the names of tokenizer_config.json.
_SETTINGS: dict[str, list] = {
    "do_lower_case": [True, False],
    "strip_accents": [None, True, False],
    "tokenize_chinese_chars": [True],
    "do_basic_tokenize": [True],
}
_OVERRULES = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}
_CLASSES = [None, "BertTokenizer", "BertTokenizerFast"]
# Tokenizers of these classes take tokenizer.json unchanged.
_GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


def arguments(preset: str | os.PathLike, text_config: dict) -> dict:
    """The ``vocabulary``, ``lowercase`` and ``strip_accents`` of a tokenizer, as a dict.

    Args:
        preset: a folder or the address of a preset on a hub.
        text_config: the configuration of the text tower.

    Raises:
        InputError: if it is not BERT's WordPiece tokenizer, or has a setting that
            ``WordPieceTokenizer`` lacks. The error names the file and the setting.
        MissingInputError: if neither ``tokenizer.json`` nor ``vocab.txt`` exists.
    """
    settings = _settings(preset)
    if hub.has_file(preset, _TOKENIZER_FILE):
        file = _TOKENIZER_FILE
        vocabulary, normalizer = _read(hub.read_json(preset, file), settings)
    else:
        file = _VOCABULARY_FILE
        # The class identifies the tokenizer, since other tokenizers have a vocab.txt as well.
        kind = {"tokenizer_class": settings.get("tokenizer_class")}
        hub.demand(kind, _CONFIG_FILE, "", {"tokenizer_class": _CLASSES})
        if not hub.has_file(preset, file):
            problem = f"neither {_TOKENIZER_FILE} nor {file} in the folder"
            raise MissingInputError(problem, remedy="add the file that the model was trained with")
        vocabulary = read_vocabulary(hub.file_of(preset, file))
        normalizer = {"lowercase": True, "strip_accents": None, **_overruled(settings)}
    rows = text_config.get("vocab_size")
    if isinstance(rows, int) and len(vocabulary) > rows:
        problem = f"{len(vocabulary):,} word pieces, but config.json has a vocab_size of {rows:,}"
        raise hub.fault(file, problem)
    return {
        "vocabulary": vocabulary,
        "lowercase": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
    }


def max_length(preset: str | os.PathLike) -> float:
    """The maximum number of word pieces of a tokenizer; infinity if it is not stated."""
    length = _settings(preset).get("model_max_length")
    if length is None:
        return float("inf")
    if not isinstance(length, int | float) or not length > 0:
        problem = f"must be a number above 0, not {length!r}"
        raise hub.fault(_CONFIG_FILE, problem, "model_max_length")
    return length


def _settings(preset):
    """The contents of ``tokenizer_config.json``, after checks; empty if there is no such file."""
    if not hub.has_file(preset, _CONFIG_FILE):
        return {}
    settings = hub.read_json(preset, _CONFIG_FILE)
    if not isinstance(settings, dict):
        raise hub.fault(_CONFIG_FILE, "is not a JSON object")
    given = {name: values for name, values in _SETTINGS.items() if name in settings}
    hub.demand(settings, _CONFIG_FILE, "", given)
    return settings


def _overruled(settings: dict) -> dict:
    """The settings of the normalizer that ``tokenizer_config.json`` overrides."""
    if settings.get("tokenizer_class") in _GENERIC_CLASSES:
        return {}
    return {name: settings[theirs] for name, theirs in _OVERRULES.items() if theirs in settings}


def _read(content: Any, settings: dict) -> tuple[list[str], dict]:
    """The word pieces and the settings of the normalizer in a ``tokenizer.json``."""
    model = _part(content, "model", _MODEL)
    # Without a normalizer, text would be neither cleaned nor lower-cased.
    normalizer = _part(content, "normalizer", _NORMALIZER, _overruled(settings))
    _part(content, "pre_tokenizer", {"type": ["BertPreTokenizer"]})
    processor = content.get("post_processor")
    # A processor that adds nothing is fine, since this package adds [CLS] and [SEP].
    if isinstance(processor, dict) and processor.get("type") == "TemplateProcessing":
        if processor.get("single") != _TEMPLATE:
            raise hub.fault(
                _TOKENIZER_FILE,
                "another template than [CLS] A [SEP] is not supported",
                "post_processor.single",
            )
    elif processor is not None:
        _part(content, "post_processor", {"type": ["BertProcessing"]})
    vocabulary = _ordered(model.get("vocab"))
    check_vocabulary(vocabulary, Place(member=_TOKENIZER_FILE))
    _check_added_tokens(content.get("added_tokens") or [], vocabulary)
    return vocabulary, normalizer


def _part(content: Any, name: str, allowed: dict[str, list], overruled: dict | None = None) -> dict:
    """A part of ``tokenizer.json``, completed by the default values, after checks."""
    part = content.get(name) if isinstance(content, dict) else None
    if not isinstance(part, dict):
        problem = f"{allowed['type'][0]} is required but missing"
        raise hub.fault(_TOKENIZER_FILE, problem, name)
    part = {**{key: values[0] for key, values in allowed.items()}, **part, **(overruled or {})}
    hub.demand(part, _TOKENIZER_FILE, name, allowed)
    return part


def _ordered(table: Any) -> list[str]:
    """Word pieces sorted by their ids, which must be 0, 1, 2, ..."""
    if not isinstance(table, dict) or not all(type(index) is int for index in table.values()):
        raise hub.fault(_TOKENIZER_FILE, "no table of word pieces and ids", "model.vocab")
    pieces = sorted(table, key=table.__getitem__)
    if [table[piece] for piece in pieces] != list(range(len(pieces))):
        raise hub.fault(_TOKENIZER_FILE, "the ids of its vocabulary have a gap")
    return pieces


def _check_added_tokens(tokens: list, vocabulary: list[str]) -> None:
    """Checks that the special tokens are BERT's and have the ids of their word pieces."""
    ids = {piece: index for index, piece in enumerate(vocabulary) if piece in _SPECIAL}
    for token in tokens:
        content, index = token["content"], token["id"]
        if content not in vocabulary:
            problem = f"the added token {content!r} is not in its vocabulary"
        elif ids.get(content) != index:
            problem = f"the added token {content!r} is not one of BERT's with its id"
        else:
            continue
        raise hub.fault(_TOKENIZER_FILE, f"{problem}, which is not supported", "added_tokens")


def write(preprocessor: keras_hub.models.Preprocessor, path: str | os.PathLike) -> None:
    """Writes the files of an ``AlignPreprocessor``'s tokenizer into a folder."""
    vocabulary = preprocessor.vocabulary
    write_vocabulary(vocabulary, os.path.join(path, _VOCABULARY_FILE))
    tokenizer = tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(vocabulary)},
        lowercase=preprocessor.lowercase,
        strip_accents=preprocessor.strip_accents,
    )
    tokenizer.save(os.path.join(path, _TOKENIZER_FILE))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "processor_class": "AlignProcessor",
        "do_lower_case": preprocessor.lowercase,
        "strip_accents": preprocessor.strip_accents,
        "tokenize_chinese_chars": True,
        "model_max_length": preprocessor.sequence_length,
        **{f"{name.lower()}_token": f"[{name}]" for name in ("CLS", "SEP", "PAD", "UNK", "MASK")},
    }
    hub.write_json(path, _CONFIG_FILE, settings)
