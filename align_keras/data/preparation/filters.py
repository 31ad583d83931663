"""The paper's rules for noisy image-text pairs (sec. 3, app. A): pure functions.

Words are unigrams as defined in ``paper_rules``. Two captions are equal if their unigrams are
equal.

Images are counted by their id: the URL if the source has one, else the path. Rules that need counts
over all data therefore do not read pixels. Copies under other URLs count as other images.

Every rule sees the unfiltered data, so their order never changes what is dropped. A pair is counted
under the first rule of ``RULES`` that it breaks. Rules that need only the table come first, so that
the images of pairs dropped by them are not decoded.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from align_keras.data import paper_rules
from align_keras.data.paper_rules import ngrams, unigrams
from align_keras.errors import InputError

__all__ = ["LIMITS", "NO_RULES", "RULES", "Counts", "Cutoff", "Rules", "ngrams", "unigrams"]

#: Every rule, in the order of checking, with a description of what it drops.
RULES = {
    "unusable_row": "row without an image or a caption",
    "unsafe": "marked as unsafe content",
    "few_words": "fewer unigrams than allowed",
    "many_words": "more unigrams than allowed",
    "shared_caption": "alt-text that too many images share",
    "rare_words": "alt-text that too many images share",
    "language": "a unigram or bigram outside the most frequent of the raw set",
    "crowded_image": "image with too many alt-texts",
    "small_image": "image with too short a side",
    "elongated_image": "image too long for its width or height",
    "unreadable_image": "image missing or damaged",
    "near_duplicate": "near-duplicate of an evaluation image",
}
#: The field of ``Rules`` with the threshold of each rule; None in that field disables the rule.
LIMITS = {
    "few_words": "min_words",
    "many_words": "max_words",
    "shared_caption": "max_images_per_caption",
    "rare_words": "frequent_ngrams",
    "language": "language",
    "crowded_image": "max_captions_per_image",
    "small_image": "min_side_above",
    "elongated_image": "max_aspect_below",
}
_UNSAFE_WORDS = re.compile(r"\s*(nsfw|unsafe|true|yes)\s*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Rules:
    """Thresholds of the rules; the defaults are the paper's, and None disables a rule.

    Part of a command's settings: an InputError names the invalid field.
    """

    min_words: int | None = paper_rules.MIN_WORDS
    """Minimum number of unigrams in a caption."""
    max_words: int | None = paper_rules.MAX_WORDS
    """Maximum number of unigrams in a caption."""
    max_images_per_caption: int | None = paper_rules.MAX_IMAGES_PER_CAPTION
    """Maximum number of different images that share an alt-text."""
    frequent_ngrams: int | None = paper_rules.FREQUENT_NGRAMS
    """Size of the list of most frequent unigrams and bigrams. A caption may contain no others."""
    max_captions_per_image: int | None = paper_rules.MAX_CAPTIONS_PER_IMAGE
    """Maximum number of different alt-texts of one image."""
    min_side_above: int | None = paper_rules.MIN_SIDE_ABOVE
    """The shorter side of an image must have more pixels than this."""
    max_aspect_below: float | None = paper_rules.MAX_ASPECT_BELOW
    """The ratio of an image's longer to shorter side must be below this."""
    language: str | None = None
    """ISO 639-1 code of the captions' language. ALIGN's captions are English; the paper does not
    say how their language was recognised.
    """
    unsafe_above: float = 0.5
    """If unsafe content is marked by a number, larger numbers are unsafe."""
    max_hash_distance: int = 4
    """Copies of an image have perceptual hashes that differ in at most this many of 64 bits. The
    paper does not use it.
    """
    max_cosine: float = paper_rules.MAX_COSINE
    """Images are near-duplicates if the cosine of their embeddings is above this."""

    def __post_init__(self) -> None:
        """Checks that the thresholds are not negative and allow some captions."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < 0:
                raise InputError(f"must not be below 0, is {value}", setting=field.name)
        fewest, most = self.min_words, self.max_words
        if fewest is not None and most is not None and fewest > most:
            raise InputError(
                f"{fewest} is above the maximum, {most}",
                remedy="lower it, or raise <max_words>",
                setting="min_words",
            )

    def but(self, without: Iterable[str] = (), **thresholds: Any) -> "Rules":
        """These rules with some disabled and some thresholds changed.

        Args:
            without: rules to disable, by their names in ``LIMITS``.
            **thresholds: new values of fields; None leaves a field unchanged.
        """
        changes: dict[str, Any] = {LIMITS[rule]: None for rule in without}
        changes |= {name: value for name, value in thresholds.items() if value is not None}
        return dataclasses.replace(self, **changes)

    @property
    def needs_counts(self) -> bool:
        """Whether any rule needs counts over the unfiltered data."""
        return any(
            limit is not None
            for limit in (
                self.max_images_per_caption,
                self.max_captions_per_image,
                self.frequent_ngrams,
            )
        )


#: Only the rules that always apply: a pair must be usable, and must not be marked as unsafe.
NO_RULES = Rules(None, None, None, None, None, None, None)


def applies(rule: str, rules: Rules) -> bool:
    """Whether a rule of ``RULES`` is enabled; rules without a threshold always are."""
    return rule not in LIMITS or getattr(rules, LIMITS[rule]) is not None


# === Words ===


def tie_break(ngram: str) -> str:
    """A hash that orders n-grams of equal count: 32 hexadecimal digits; smaller ones are kept.

    Alphabetical order would always drop the last letters and scripts.
    """
    return hashlib.md5(ngram.encode(), usedforsecurity=False).hexdigest()


@dataclasses.dataclass(frozen=True)
class Cutoff:
    """N-grams above ``count``, plus ``room`` n-grams with exactly ``count``.

    ``tie_break`` decides among n-grams with equal counts.
    """

    count: int
    room: int


def cutoff(histogram: Mapping[int, int], most: int) -> Cutoff | None:
    """Computes where the list of the most frequent n-grams ends.

    Args:
        histogram: number of n-grams for each count.
        most: maximum number of frequent n-grams.

    Returns:
        A ``Cutoff``, or None if all are frequent.
    """
    for count in sorted(histogram, reverse=True):
        if histogram[count] > most:
            return Cutoff(count, most)
        most -= histogram[count]
    return None


def place_of_bound(ranges: Mapping[str, int], cutoff: Cutoff) -> tuple[str, int]:
    """Locates the smallest ``tie_break`` of a rare n-gram among those with the cutoff's count.

    There may be millions of such n-grams. With the result, only those of one range need sorting.

    Args:
        ranges: number of these n-grams for each prefix of their ``tie_break``.
        cutoff: result of ``cutoff``.

    Returns:
        The prefix of the range, and the index in the sorted range; ``("", 0)`` if none is rare.
    """
    room = cutoff.room
    for digits in sorted(ranges):
        if room < ranges[digits]:
            return digits, room
        room -= ranges[digits]
    return "", 0


# === Rules of the table ===


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts over the unfiltered data that concern one pair."""

    images_of_caption: int = 0
    captions_of_image: int = 0
    rare_ngram: bool = False


def broken_text_rule(
    words: int,
    counts: Counts,
    rules: Rules,
    unsafe: bool = False,
    in_language: Callable[[], bool] | None = None,
) -> str | None:
    """The first rule that a pair breaks, judged by the table alone.

    Args:
        words: number of unigrams in the caption.
        counts: ``Counts`` of the pair.
        rules: ``Rules``.
        unsafe: whether the pair is marked as unsafe.
        in_language: returns whether the caption is in the language; called only if no earlier rule
            is broken.

    Returns:
        A name in ``RULES``, or None.
    """

    def above(value: int, limit: int | None) -> bool:
        return limit is not None and value > limit

    if unsafe:
        return "unsafe"
    if rules.min_words is not None and words < rules.min_words:
        return "few_words"
    if above(words, rules.max_words):
        return "many_words"
    if above(counts.images_of_caption, rules.max_images_per_caption):
        return "shared_caption"
    if counts.rare_ngram:
        return "rare_words"
    if rules.language is not None and in_language is not None and not in_language():
        return "language"
    if above(counts.captions_of_image, rules.max_captions_per_image):
        return "crowded_image"
    return None


def is_unsafe(value: object, rules: Rules) -> bool:
    """Whether the value of a field marks unsafe content.

    Unsafe values are a number above ``rules.unsafe_above``, also as text; True; and nsfw, unsafe,
    true and yes, as in LAION's ``NSFW`` and ``punsafe``. All other values, and None, are safe.
    """
    if value is None:
        return False
    try:
        return float(value) > rules.unsafe_above  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return bool(_UNSAFE_WORDS.fullmatch(str(value)))


# === Rules of the image ===


def broken_size_rule(width: int, height: int, rules: Rules) -> str | None:
    """``small_image``, ``elongated_image`` or None, given an image's size in pixels."""
    shorter, longer = sorted((width, height))
    if rules.min_side_above is not None and shorter <= rules.min_side_above:
        return "small_image"
    if rules.max_aspect_below is not None and longer >= rules.max_aspect_below * shorter:
        return "elongated_image"
    return None
