"""The paper's rules for noisy image-text pairs (sec. 3, app. A): pure functions.

Words are unigrams as ``paper_rules`` defines them. Two captions are the same if their unigrams
are.

Images are counted by their id: the URL where the source has one, else the path. So rules that
need the whole set need no pixels. Copies under other URLs count as other images.

Every rule sees the unfiltered data, so their order never changes what is dropped. A pair is
counted under the first rule of ``RULES`` that it breaks. Rules that read the table alone come
first, so that images of pairs they drop are not decoded.
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

#: Every rule in the order of judgement, with what it drops.
RULES = {
    "unusable_row": "row without an image or a caption",
    "unsafe": "marked as unsafe content",
    "few_words": "fewer unigrams than allowed",
    "many_words": "more unigrams than allowed",
    "shared_caption": "alt-text that too many images share",
    "rare_words": "a unigram or bigram outside the most frequent of the raw set",
    "language": "another language",
    "crowded_image": "image with too many alt-texts",
    "small_image": "image with too short a side",
    "elongated_image": "image too long for its width or height",
    "unreadable_image": "image missing or damaged",
    "near_duplicate": "near-duplicate of an evaluation image",
}
#: The field of ``Rules`` that sets a rule's threshold; None there leaves the rule out.
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
    """Thresholds of the rules; the defaults are the paper's, None leaves a rule out.

    A part of a command's settings: an InputError names the field that is wrong.
    """

    min_words: int | None = paper_rules.MIN_WORDS
    """Unigrams of a caption, at least."""
    max_words: int | None = paper_rules.MAX_WORDS
    """Unigrams of a caption, at most."""
    max_images_per_caption: int | None = paper_rules.MAX_IMAGES_PER_CAPTION
    """Maximum number of different images that share an alt-text."""
    frequent_ngrams: int | None = paper_rules.FREQUENT_NGRAMS
    """Most frequent unigrams and bigrams, in one list, that a caption may be made of."""
    max_captions_per_image: int | None = paper_rules.MAX_CAPTIONS_PER_IMAGE
    """Maximum number of different alt-texts of one image."""
    min_side_above: int | None = paper_rules.MIN_SIDE_ABOVE
    """Pixels that the shorter side must exceed."""
    max_aspect_below: float | None = paper_rules.MAX_ASPECT_BELOW
    """The ratio of longer to shorter side must stay below."""
    language: str | None = None
    """ISO 639-1 code of the captions' language. ALIGN's are English; the paper does not say how
    it recognised them."""
    unsafe_above: float = 0.5
    """Where a field marks unsafe content by a number: what is unsafe."""
    max_hash_distance: int = 4
    """Bits of 64 in which perceptual hashes of copies differ, at most; not the paper's."""
    max_cosine: float = paper_rules.MAX_COSINE
    """Cosine of image embeddings above which two images are near-duplicates."""

    def __post_init__(self) -> None:
        """Checks that a threshold can leave something over."""
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
        """These rules with some left out and some thresholds changed.

        Args:
            without: names of ``LIMITS`` to leave out.
            **thresholds: fields of ``Rules``; None leaves a field as it is.
        """
        changes: dict[str, Any] = {LIMITS[rule]: None for rule in without}
        changes |= {name: value for name, value in thresholds.items() if value is not None}
        return dataclasses.replace(self, **changes)

    @property
    def needs_counts(self) -> bool:
        """Whether a rule needs counts of the whole set."""
        return any(
            limit is not None
            for limit in (
                self.max_images_per_caption,
                self.max_captions_per_image,
                self.frequent_ngrams,
            )
        )


#: No rule but that a pair be usable.
NO_RULES = Rules(None, None, None, None, None, None, None)


def applies(rule: str, rules: Rules) -> bool:
    """Whether a rule of ``RULES`` has a threshold; those without one always apply."""
    return rule not in LIMITS or getattr(rules, LIMITS[rule]) is not None


# === Words ===


def tie_break(ngram: str) -> str:
    """Orders n-grams of the same count: 32 hexadecimal digits, the smaller is kept.

    By the alphabet, the last letters and scripts would always lose.
    """
    return hashlib.md5(ngram.encode(), usedforsecurity=False).hexdigest()


@dataclasses.dataclass(frozen=True)
class Cutoff:
    """N-grams above ``count``, plus ``room`` n-grams with exactly ``count``.

    Those of the same count are taken by ``tie_break``.
    """

    count: int
    room: int


def cutoff(histogram: Mapping[int, int], most: int) -> Cutoff | None:
    """Where the list of the most frequent n-grams ends.

    Args:
        histogram: how many n-grams there are of each count, a dict by count.
        most: how many n-grams are frequent, at most.

    Returns:
        A ``Cutoff``, or None if all are frequent.
    """
    for count in sorted(histogram, reverse=True):
        if histogram[count] > most:
            return Cutoff(count, most)
        most -= histogram[count]
    return None


def place_of_bound(ranges: Mapping[str, int], cutoff: Cutoff) -> tuple[str, int]:
    """Where the least ``tie_break`` is that is rare among n-grams of the cutoff's count.

    There may be millions of them: only those of one range need to be sorted.

    Args:
        ranges: how many of them there are by the first digits of their ``tie_break``.
        cutoff: as in ``cutoff``.

    Returns:
        The digits of its range, and its place there; two of nothing if none is rare.
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
    """Counts over the complete raw set that concern one pair."""

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
    """The first rule that a pair breaks by what stands in the table.

    Args:
        words: how many unigrams the caption has.
        counts: ``Counts`` of the pair.
        rules: ``Rules``.
        unsafe: whether it is marked as unsafe.
        in_language: called without arguments for whether the caption is in the language, only
            where no earlier rule is broken.

    Returns:
        A name of ``RULES``, or None.
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

    A number (or one in words) above ``rules.unsafe_above``, True, or one of nsfw, unsafe, true
    and yes, as in LAION's ``NSFW`` and ``punsafe``; all else, and no value, is safe.
    """
    if value is None:
        return False
    try:
        return float(value) > rules.unsafe_above  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return bool(_UNSAFE_WORDS.fullmatch(str(value)))


# === Rules of the image ===


def broken_size_rule(width: int, height: int, rules: Rules) -> str | None:
    """``small_image`` or ``elongated_image`` by an image's pixels, or None."""
    shorter, longer = sorted((width, height))
    if rules.min_side_above is not None and shorter <= rules.min_side_above:
        return "small_image"
    if rules.max_aspect_below is not None and longer >= rules.max_aspect_below * shorter:
        return "elongated_image"
    return None
