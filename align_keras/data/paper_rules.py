"""The paper's thresholds for raw pairs (sec. 3), and the definition of a unigram.

The paper does not define a unigram. Here it is a lower-cased, whitespace-separated token without
outer punctuation: it runs from the token's first letter or digit to its last. A token without
letters and digits is not counted. Languages written without spaces therefore have few unigrams. A
bigram is two neighbouring unigrams.
"""

import itertools
import re
import unicodedata

#: Minimum number of unigrams in a caption.
MIN_WORDS = 3
#: Maximum number of unigrams in a caption.
MAX_WORDS = 20
#: Maximum number of different images that share an alt-text.
MAX_IMAGES_PER_CAPTION = 10
#: Size of the list of most frequent unigrams and bigrams. A caption may contain no others.
FREQUENT_NGRAMS = 100_000_000
#: Maximum number of different alt-texts of one image.
MAX_CAPTIONS_PER_IMAGE = 1_000
#: The shorter side of an image must have more pixels than this.
MIN_SIDE_ABOVE = 200
#: The ratio of an image's longer to shorter side must be below this.
MAX_ASPECT_BELOW = 3.0
#: Images are near-duplicates if the cosine of their embeddings is above this.
MAX_COSINE = 0.975

#: Regular expressions, in Python's syntax, of a letter or digit and of any character of a token.
LETTER, SOLID = r"[^\W_]", r"\S"


def unigram_pattern(letter: str = LETTER, solid: str = SOLID) -> str:
    """The regular expression of a unigram in a lower-cased caption.

    The match is greedy, so a token gives one match, from its first letter or digit to its last.

    Args:
        letter: expression for a letter or digit; other syntaxes than Python's may need another one.
        solid: expression for a character that is not white space.
    """
    return f"{letter}(?:{solid}*{letter})?"


_UNIGRAM = re.compile(unigram_pattern())


def unigrams(caption: str) -> list[str]:
    """The unigrams of a caption."""
    return _UNIGRAM.findall(caption.lower())


def ngrams(words: list[str]) -> list[str]:
    """All unigrams and bigrams, with repeats; a bigram's words are joined by a space."""
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]


#: Matches a caption that is empty after BERT's normalisation: it has only white space, control,
#: format and private-use characters, or accents. In RE2's syntax; ``has_words`` is the Python
#: version.
EMPTY_CAPTION = r"[\s\pZ\p{Cc}\p{Cf}\p{Co}\p{Mn}\x{fffd}]*"
_EMPTY_CATEGORIES = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Mn"))


def has_words(caption: str) -> bool:
    """Whether a caption has any character left after BERT's normalisation."""
    return any(
        unicodedata.category(letter) not in _EMPTY_CATEGORIES and letter != "\ufffd"
        for letter in caption
    )
