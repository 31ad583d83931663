"""Recognises whether a caption is in a language, with py3langid."""

import functools
import importlib.util
import re
from collections.abc import Callable
from typing import Any

from align_keras.errors import InputError

# The languages to choose from: those of most web pages. If py3langid chooses among all its
# languages, it takes short English captions for rare ones, for example 7 % of a sample of alt-texts
# for Nigerian Pidgin.
_LANGUAGES = re.findall(
    r"\w+",
    "ar bg cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv nl no pl pt ro ru sk sl sv "
    "th tr uk vi zh",
)
# Minimum probability at which another language is accepted. Using only the likeliest language would
# drop 28 % of 2,150 English product titles, which consist mostly of names. This threshold drops 0.3
# % of them, and still drops 99.2 to 100 % of German, French and Czech sentences (90 to 98 % if only
# their first four words are given).
_BELIEVED = 0.5


def check_language(code: str) -> None:
    """Raises InputError if a language cannot be recognised; loads no model."""
    if code not in _LANGUAGES:
        raise InputError(f"{code!r} must be one of {' '.join(_LANGUAGES)}")
    if importlib.util.find_spec("py3langid") is None:
        raise InputError("needs py3langid", remedy="pip install 'align-keras[data]'")


def language_detector(code: str) -> Callable[[str], bool]:
    """A function that returns whether a caption may be in the language.

    It returns False if another language is more probable than all others together.

    Args:
        code: ISO 639-1 code, such as ``en``.

    Raises:
        InputError: if the language is not supported, or py3langid is missing.
    """
    check_language(code)
    identifier = _identifier()

    def may_be_in_language(caption: str) -> bool:
        language, probability = identifier.classify(caption)
        return language == code or probability <= _BELIEVED

    return may_be_in_language


@functools.cache  # its model takes half a second to decompress, and every part of a source needs it
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES)
    return identifier
