"""Counts the input pairs, those that each rule dropped and those kept, with examples, as JSON."""

import base64
import collections
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from align_keras import files
from align_keras.data.examples.example import Example, storable
from align_keras.data.preparation import filter_page, filters
from align_keras.data.preparation.near_duplicates import THUMBNAIL, THUMBNAIL_QUALITY
from align_keras.data.preparation.verdicts import Picture, Verdict
from align_keras.preprocessing.thumbnails import make_thumbnail

#: The key under which kept pairs are counted.
KEPT = "kept"
#: Number of example pairs shown per rule.
EXAMPLES = 12
# Lower bounds of the histogram of shorter sides, in pixels. The paper's threshold is one of them.
_SIDES = (0, 50, 100, 201, 300, 400, 600, 800, 1_200, 2_000)
_WORDS = 31  # the last bin holds captions of 30 or more unigrams


@dataclasses.dataclass
class Tally:
    """Counts and examples that can be merged over parts in any order.

    Attributes:
        rules: number of pairs by the rule that dropped them; kept pairs are under ``KEPT``.
        reasons: number of dropped pairs by reason, since a rule may have several reasons.
        words: histogram of unigrams per caption, by ``(is_kept, number)``.
        sides: histogram of the shorter sides of the examined images, in pixels, by ``(is_kept,
            bin)``. An image with several captions counts once per caption.
        turned: number of kept pairs whose image EXIF turns upright.
        examples: by rule, up to 12 pairs: those with the smallest keys.
        left_out: for each dropped pair, its ``where``, ``image``, ``rule`` and ``reason`` are
            appended here.
    """

    rules: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    words: collections.Counter[tuple[bool, int]] = dataclasses.field(
        default_factory=collections.Counter
    )
    sides: collections.Counter[tuple[bool, int]] = dataclasses.field(
        default_factory=collections.Counter
    )
    turned: int = 0
    examples: dict[str, dict[str, dict]] = dataclasses.field(default_factory=dict)
    left_out: Any = dataclasses.field(default_factory=list)

    def add(self, example: Example, verdict: Verdict, picture: Picture) -> None:
        """Adds one pair, given its example, the verdict on its caption and its picture."""
        kept = verdict.rule is None
        reason = self.count(verdict.rule, verdict.reason, len(verdict.words))
        self.turned += kept and picture.is_turned
        if picture.size is not None:
            self.sides[kept, max(side for side in _SIDES if side <= min(picture.size))] += 1
        if not kept:
            where, image = example.key, example.image_id
            self.left_out.append(
                {"where": where, "image": image, "rule": verdict.rule, "reason": reason}
            )
        self.show(example, verdict, picture)

    def count(self, rule: str | None, reason: str | None, words: int, pairs: int = 1) -> str:
        """Counts pairs without their images; returns the reason for dropping them, or "".

        Args:
            rule: the rule that dropped them, or None.
            reason: the precise reason, if the rule has several.
            words: number of unigrams in each caption.
            pairs: number of pairs.
        """
        self.rules[rule or KEPT] += pairs
        if rule != "unusable_row":
            self.words[rule is None, min(words, _WORDS - 1)] += pairs
        if rule is None:
            return ""
        reason = reason or filters.RULES[rule]
        self.reasons[reason] += pairs
        return reason

    def show(self, example: Example, verdict: Verdict, picture: Picture) -> None:
        """Adds a pair to the examples of its rule if its key is among the smallest."""
        rule = verdict.rule or KEPT
        examples = self.examples.setdefault(rule, {})
        if len(examples) < EXAMPLES or verdict.key < max(examples):
            examples[verdict.key] = _shown(example, verdict, picture)
            self._trim(rule)

    @property
    def kept(self) -> int:
        """The number of kept pairs."""
        return self.rules[KEPT]

    def _trim(self, rule: str) -> None:
        self.examples[rule] = dict(sorted(self.examples[rule].items())[:EXAMPLES])

    def merge(self, other: "Tally") -> "Tally":
        """Adds another tally to this one, except its ``left_out``."""
        for name in ("rules", "reasons", "words", "sides"):
            getattr(self, name).update(getattr(other, name))
        self.turned += other.turned
        for rule, examples in other.examples.items():
            self.examples.setdefault(rule, {}).update(examples)
            self._trim(rule)
        return self

    def as_json(self, rules: filters.Rules) -> dict[str, Any]:
        """The contents of ``report.json``: numbers of pairs, each rule, histograms.

        Args:
            rules: the ``filters.Rules`` that were applied.
        """
        return {
            "pairs_in": self.rules.total(),
            "pairs_out": self.kept,
            "pairs_turned_upright": self.turned,
            "thresholds": dataclasses.asdict(rules),
            "rules": [
                {
                    "rule": rule,
                    "drops": text,
                    "limit": filters.LIMITS.get(rule),
                    "applied": filters.applies(rule, rules),
                    "pairs": self.rules[rule],
                    "examples": list(self.examples.get(rule, {}).values()),
                }
                for rule, text in filters.RULES.items()
            ],
            "reasons": dict(sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))),
            "kept_examples": list(self.examples.get(KEPT, {}).values()),
            "caption_words": self._histogram(self.words, range(_WORDS)),
            "shorter_side_pixels": self._histogram(self.sides, _SIDES),
        }

    @staticmethod
    def _histogram(
        counts: collections.Counter[tuple[bool, int]], bins: Iterable[int]
    ) -> list[dict[str, int]]:
        """Bins by lower bound, with the numbers of input and kept pairs; the last is open."""
        found = ((start, counts[True, start], counts[False, start]) for start in bins)
        return [{"from": start, "in": kept + gone, "out": kept} for start, kept, gone in found]


def _shown(example: Example, verdict: Verdict, picture: Picture) -> dict[str, Any]:
    caption = verdict.caption if isinstance(verdict.caption, str) else None
    shown = {
        "where": storable(example.key),
        "image": storable(example.image_id),
        "caption": caption and storable(caption[:1_000]),
        "size": picture.size and list(picture.size),
        "thumbnail": _thumbnail(example, picture),
    }
    # Not shown for a pair that another rule drops first.
    if picture.twin and verdict.rule == picture.rule:
        shown["matches"] = base64.b64encode(picture.twin).decode()
    if verdict.reason:
        shown["reason"] = verdict.reason
    return shown


def _thumbnail(example: Example, picture: Picture) -> str | None:
    """A small JPEG in base 64; None if the image cannot be shown."""
    try:
        encoded = make_thumbnail(picture.data or example.load(), THUMBNAIL, THUMBNAIL_QUALITY)
    except Exception:  # damaged files and other readers raise any error; the report continues
        return None
    return base64.b64encode(encoded).decode()


def write(report: dict[str, Any], output: str) -> None:
    """Writes a report of ``Tally.as_json`` as ``OUTPUT-report.json`` and ``.html``."""
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    files.write_whole(f"{output}-report.json", text)
    files.write_whole(f"{output}-report.html", filter_page.render(report))
