"""The paper's thresholds for raw pairs (sec. 3), and the definition of a unigram.

The paper does not define a unigram. Here it is a lower-cased, whitespace-separated token without
outer punctuation: from its first letter or digit to its last. A token without either is not
counted. Languages written without spaces therefore have few unigrams. A bigram is two neighbouring
unigrams.
"""

import itertools
import re
import unicodedata

#: Unigrams of a caption, at least.
MIN_WORDS = 3
#: Unigrams of a caption, at most.
MAX_WORDS = 20
#: Maximum number of different images that share an alt-text.
MAX_IMAGES_PER_CAPTION = 10
#: Most frequent unigrams and bigrams, in one list, that a caption may be made of.
FREQUENT_NGRAMS = 100_000_000
#: Maximum number of different alt-texts of one image.
MAX_CAPTIONS_PER_IMAGE = 1_000
#: Pixels that the shorter side must exceed.
MIN_SIDE_ABOVE = 200
#: The ratio of longer to shorter side must stay below.
MAX_ASPECT_BELOW = 3.0
#: Cosine of image embeddings above which two images are near-duplicates.
MAX_COSINE = 0.975

#: What a unigram is made of, in Python's syntax: a letter or digit, and any part of a token.
LETTER, SOLID = r"[^\W_]", r"\S"


def unigram_pattern(letter: str = LETTER, solid: str = SOLID) -> str:
    """The regular expression of a unigram in a lower-cased caption.

    Greedy, so there is one match a token: from its first letter or digit to its last.

    Args:
        letter: matches a letter or digit; another syntax than Python's may write it otherwise.
        solid: matches a character that is no white space.
    """
    return f"{letter}(?:{solid}*{letter})?"


_UNIGRAM = re.compile(unigram_pattern())


def unigrams(caption: str) -> list[str]:
    """The unigrams of a caption, without white space."""
    return _UNIGRAM.findall(caption.lower())


def ngrams(words: list[str]) -> list[str]:
    """Unigrams and bigrams, each as often as it occurs; a bigram's words have a space between."""
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]


#: Matches a caption in which BERT's normaliser leaves nothing: white space, control, format and
#: private-use characters, and accents alone. RE2's syntax; ``has_words`` is the same in Python.
EMPTY_CAPTION = r"[\s\pZ\p{Cc}\p{Cf}\p{Co}\p{Mn}\x{fffd}]*"
_EMPTY_CATEGORIES = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Mn"))


def has_words(caption: str) -> bool:
    """Whether anything is left of a caption after BERT's normalisation."""
    return any(
        unicodedata.category(letter) not in _EMPTY_CATEGORIES and letter != "\ufffd"
        for letter in caption
    )
