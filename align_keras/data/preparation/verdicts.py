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
    """Unigrams of the caption."""
    rule: str | None = None
    """The first rule of ``filters.RULES`` that the pair breaks, or None."""
    reason: str | None = None
    """The precise reason, if the rule has several."""


@dataclasses.dataclass
class Picture:
    """Verdict on the image of an example."""

    data: bytes | None = None
    """The encoded image as read; None if it was not read."""
    jpg: bytes | None = None
    """The image as JPEG; None if it does not decode."""
    size: tuple[int, int] | None = None
    is_turned: bool = False
    """Whether the image's EXIF orientation turns it."""
    twin: bytes | None = None
    """A small JPEG of the evaluation image of which this image is a near-duplicate."""
    rule: str | None = None
    reason: str | None = None
