"""From the rows of a source to the records that the rules keep: what both engines share."""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable

from align_keras.data import records
from align_keras.data.examples import packing
from align_keras.data.preparation import filters
from align_keras.data.preparation.languages import language_detector

# Rows whose images are in memory at a time: few enough for large photographs, many enough for the
# threads and for an image tower.
_WINDOW = 64


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is to be done with the pairs of a source; workers of Beam get a copy.

    Attributes:
        source: as of ``sources``.
        rules: ``filters.Rules``.
        seed: decides the order of the records.
        near_duplicates: a ``near_duplicates.EvaluationImages``, or None.
        is_unsafe: a function of a ``sources.Row``, beside the field that marks it, or None.
        table_only: whether to open no image; records are then lines of JSON, such as for
            img2dataset to download.
    """

    source: object
    rules: filters.Rules
    seed: int = 0
    near_duplicates: object = None
    is_unsafe: Callable | None = None
    table_only: bool = False

    def pairs(self, part):
        """What the counts of the whole set need of a part, without images.

        Yields:
            ``(row, caption, image_id, words)``: the two numbers that tell a pair within its part,
            the image's id, and the caption's unigrams. Unusable pairs are left out.
        """
        for number, row in enumerate(self.source.rows(part)):
            for index, caption in enumerate(row.captions):
                if _unusable(row, caption) is None:
                    yield number, index, row.image_id, filters.unigrams(caption)

    def kept(self, part, counts, tally):
        """The records of a part that the rules keep.

        Args:
            part: one of the source's.
            counts: ``(row, caption, filters.Counts)`` in the order of ``pairs``; pairs within
                every limit may be left out.
            tally: a ``filter_report.Tally``, to which every pair of the part is added.

        Yields:
            ``(key, record)``: a hexadecimal key by which the records are to be sorted, and a
            serialised pair, bytes.
        """
        judged = self._judged(part, counts)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            while window := list(itertools.islice(judged, _WINDOW)):
                yield from self._finished(window, threads, tally)

    def _judged(self, part, counts):
        """Rows with their verdicts by the table: ``(row, [_Verdict])``."""
        rules, counts = self.rules, iter(counts)
        speaks = language_detector(rules.language) if rules.language else None
        ahead = next(counts, None)
        for number, row in enumerate(self.source.rows(part)):
            verdicts = []
            for index, caption in enumerate(row.captions):
                counted = filters.Counts()
                if ahead is not None and ahead[:2] == (number, index):
                    counted, ahead = ahead[2], next(counts, None)
                verdicts.append(self._judge_caption(row, index, caption, counted, speaks))
            yield row, verdicts

    def _judge_caption(self, row, index, caption, counted, speaks):
        key = pair_key(self.seed, row.where, index)
        if (reason := _unusable(row, caption)) is not None:
            return _Verdict(key, caption, [], "unusable_row", reason)
        words = filters.unigrams(caption)
        unsafe = filters.is_unsafe(row.unsafe, self.rules)
        unsafe = unsafe or (self.is_unsafe is not None and self.is_unsafe(row))
        in_language = speaks and (lambda: speaks(caption))
        rule = filters.broken_text_rule(words, counted, self.rules, unsafe, in_language)
        return _Verdict(key, caption, words, rule)

    def _finished(self, window, threads, tally):
        """Reads and judges the images of a window, and makes the records."""
        wanted = [any(verdict.rule is None for verdict in verdicts) for _, verdicts in window]
        pictures = [
            _read(row, self) if want else _Picture()
            for (row, _), want in zip(window, wanted, strict=True)
        ]
        list(threads.map(_decode, [p for p in pictures if p.data is not None and p.rule is None]))
        if self.near_duplicates is not None:
            usable = [picture for picture in pictures if picture.jpg and picture.rule is None]
            found = self.near_duplicates.find([picture.jpg for picture in usable])
            for picture, duplicate in zip(usable, found, strict=True):
                picture.rule = "near_duplicate" if duplicate else None
        for (row, verdicts), picture in zip(window, pictures, strict=True):
            for verdict in verdicts:
                record = None
                if verdict.rule is None:
                    verdict.rule, verdict.reason = picture.rule, picture.reason
                if verdict.rule is None:
                    record = self._make_record(row, picture.jpg, verdict)
                tally.add(row, verdict, picture)
                if record is not None:
                    yield verdict.key, record

    def _make_record(self, row, jpg, verdict):
        caption = verdict.caption.strip()
        try:
            if self.table_only:
                fields = {"url": row.image_id, "caption": caption, **row.carried}
                return json.dumps(fields, ensure_ascii=False).encode()
            return records.make_record(
                jpg, caption, verdict.key, image_id=row.image_id, **row.carried
            )
        except (TypeError, ValueError):
            verdict.rule = "unusable_row"
            verdict.reason = "caption or carried column cannot be stored"
            return None


@dataclasses.dataclass
class _Verdict:
    """What became of one caption of a row."""

    key: str
    caption: object
    words: list
    rule: str | None = None
    reason: str | None = None


@dataclasses.dataclass
class _Picture:
    """What became of the image of a row."""

    data: bytes | None = None
    jpg: bytes | None = None
    size: tuple | None = None
    rule: str | None = None
    reason: str | None = None


def pair_key(seed, where, index):
    """The name of a pair, by which it is also sorted: 16 hexadecimal digits."""
    return hashlib.blake2b(f"{seed} {where} {index}".encode(), digest_size=8).hexdigest()


def _unusable(row, caption):
    return row.fault or packing.caption_fault(caption)


def _read(row, preparation):
    """Reads an image unless the source names a size that breaks a rule; judges its size."""
    picture, rules = _Picture(size=row.size), preparation.rules
    if row.size is not None:
        picture.rule = filters.broken_size_rule(*row.size, rules)
        if picture.rule is not None:
            return picture
    if preparation.table_only:
        return picture
    try:
        picture.data = row.load()
    except FileNotFoundError:
        picture.rule, picture.reason = "unreadable_image", "image file missing"
    except packing.UNREADABLE:
        picture.rule, picture.reason = "unreadable_image", "image file unreadable"
    else:
        picture.size = row.size or packing.image_size(picture.data)
        if picture.size is not None:
            picture.rule = filters.broken_size_rule(*picture.size, rules)
    return picture


def _decode(picture):
    try:
        picture.jpg = packing.to_jpeg(picture.data)
    except ValueError as error:
        picture.rule, picture.reason = "unreadable_image", str(error)
