"""Whether a caption is in a language, by py3langid."""

import functools
import importlib.util
import re
from collections.abc import Callable
from typing import Any

from align_keras.errors import InputError

# The languages distinguished: those of most of the web. Among all that py3langid knows, short
# English captions are taken for rare ones: for Nigerian Pidgin, 7 % of an alt-text sample.
_LANGUAGES = re.findall(
    r"\w+",
    "ar bg cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv nl no pl pt ro ru sk sl sv "
    "th tr uk vi zh",
)
# Probability from which another language is believed. The likeliest language alone would drop 28 %
# of 2,150 English product titles, which are names for the most part; so 0.3 % go, and 99.2 to
# 100 % of German, French and Czech sentences (90 to 98 % of their first four words).
_BELIEVED = 0.5


def check_language(code: str) -> None:
    """Raises InputError if a language cannot be determined, without loading anything."""
    if code not in _LANGUAGES:
        raise InputError(f"{code!r} must be one of {' '.join(_LANGUAGES)}")
    if importlib.util.find_spec("py3langid") is None:
        raise InputError("needs py3langid", remedy="pip install 'align-keras[data]'")


def language_detector(code: str) -> Callable[[str], bool]:
    """A function of a caption that says whether it may be in the language.

    It returns False if another language is likelier than all the rest together.

    Args:
        code: ISO 639-1, such as ``en``.

    Raises:
        InputError: if the code is not one of the languages distinguished, or py3langid is missing.
    """
    check_language(code)
    identifier = _identifier()

    def may_be_in_language(caption: str) -> bool:
        language, probability = identifier.classify(caption)
        return language == code or probability <= _BELIEVED

    return may_be_in_language


@functools.cache  # its file takes half a second to decompress, and each part of a source asks
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES)
    return identifier
