"""Verdicts of the rules on one caption and one image."""

import dataclasses


@dataclasses.dataclass
class Verdict:
    """Verdict on one caption of an example."""

    key: str
    """Name of the pair."""
    caption: object
    """A string if the pair is usable."""
    words: list[str]
    """Its unigrams."""
    rule: str | None = None
    """The rule of ``filters.RULES`` that it breaks, or None."""
    reason: str | None = None
    """More precisely, where a rule has several reasons."""


@dataclasses.dataclass
class Picture:
    """Verdict on the image of an example."""

    data: bytes | None = None
    """The encoded image as it was read; None if it was not."""
    jpg: bytes | None = None
    """The same as a JPEG; None if it does not decode."""
    size: tuple[int, int] | None = None
    is_turned: bool = False
    """Whether its EXIF turns it."""
    twin: bytes | None = None
    """A small JPEG of the evaluation image that it is a near-duplicate of."""
    rule: str | None = None
    reason: str | None = None
