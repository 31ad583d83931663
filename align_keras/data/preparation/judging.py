"""Applies the rules to examples and makes records of the kept pairs; both engines use it."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from align_keras import progress
from align_keras.data import records
from align_keras.data.examples import Example, ExampleSet
from align_keras.data.examples.example import caption_fault
from align_keras.data.examples.image_files import UNREADABLE, fault_of
from align_keras.data.preparation import encoding, filters
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.languages import language_detector
from align_keras.data.preparation.near_duplicates import EvaluationImages
from align_keras.data.preparation.verdicts import Picture, Verdict
from align_keras.preprocessing.decoding.decoder import read_orientation
from align_keras.preprocessing.decoding.faults import ImageFaultError
from align_keras.preprocessing.decoding.orientation import AS_STORED

# Number of examples whose images are in memory at a time: few enough for large photographs, many
# enough to keep the threads and an image tower busy.
_WINDOW = 64

_Judged: TypeAlias = tuple[Example, list[Verdict]]
_Read: TypeAlias = tuple[Example, list[Verdict], Picture]


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How to process the pairs of a source; each Beam worker gets a copy.

    Attributes:
        source: images with captions.
        rules: ``filters.Rules``.
        seed: decides the order of the records.
        near_duplicates: the evaluation images whose near-duplicates are dropped, or None.
        is_unsafe: returns whether an ``Example`` is unsafe, in addition to the field that marks it;
            or None.
        table_only: if True, no image is opened, and records are JSON lines, for example as a list
            of downloads for img2dataset.
    """

    source: ExampleSet
    rules: filters.Rules
    seed: int = 0
    near_duplicates: EvaluationImages | None = None
    is_unsafe: Callable[[Example], bool] | None = None
    table_only: bool = False

    def pairs(self, part: str) -> Iterator[tuple[int, int, str, list[str]]]:
        """Yields the pairs of a part for the counts over the unfiltered data, without images.

        Yields:
            ``(row, caption, image_id, words)``: two numbers that identify the pair within its part,
            the id of the image, and the unigrams of the caption. Unusable pairs are skipped.
        """
        for number, example in enumerate(self.source.read(part)):
            for index, caption in enumerate(example.texts):
                if isinstance(caption, str) and _unusable(example, caption) is None:
                    yield number, index, example.image_id, filters.unigrams(caption)

    def kept(
        self, part: str, counts: Iterable[tuple[int, int, filters.Counts]], tally: Tally
    ) -> Iterator[tuple[str, bytes]]:
        """Yields the records of a part that the rules keep.

        Args:
            part: one of the parts of the source.
            counts: ``(row, caption, filters.Counts)`` in the order of ``pairs``; pairs that exceed
                no limit may be missing.
            tally: tally to which every pair of the part is added.

        Yields:
            ``(key, record)``: a hexadecimal key that defines the order of the records, and a
            serialised pair.
        """
        examine = functools.partial(_examine, rules=self.rules)
        # Only this thread reads the source: archives and tables have a single read position.
        read = self._read(self._judged(part, counts))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            # Reading the next window in parallel would be slower, since reading is Python code too.
            while window := list(itertools.islice(read, _WINDOW)):
                list(threads.map(examine, window))
                yield from self._finished(window, tally)

    def _judged(
        self, part: str, counts: Iterable[tuple[int, int, filters.Counts]]
    ) -> Iterator[_Judged]:
        """Yields examples with verdicts on their captions, judged by the table alone."""
        rules, counts = self.rules, iter(counts)
        speaks = language_detector(rules.language) if rules.language else None
        ahead = next(counts, None)
        for number, example in enumerate(self._watched(part)):
            verdicts = []
            for index, caption in enumerate(example.texts):
                counted = filters.Counts()
                if ahead is not None and ahead[:2] == (number, index):
                    counted, ahead = ahead[2], next(counts, None)
                verdicts.append(self._judge_caption(example, index, caption, counted, speaks))
            yield example, verdicts

    def _watched(self, part: str) -> Iterable[Example]:
        """The examples of a part, with a progress bar if there is only one part."""
        examples = self.source.read(part)
        if not progress.is_shown() or len(self.source.parts) > 1:
            return examples
        # If images are not opened, counting the rows first would take as long as the work itself.
        total = None if self.table_only else self.source.count
        return progress.watch(examples, "reading images and judging pairs", "row", total)

    def _judge_caption(
        self,
        example: Example,
        index: int,
        caption: object,
        counted: filters.Counts,
        speaks: Callable[[str], bool] | None,
    ) -> Verdict:
        verdict = self._verdict(example, index, caption)
        if verdict.rule is not None or not isinstance(caption, str):
            return verdict
        unsafe = filters.is_unsafe(example.unsafe, self.rules)
        unsafe = unsafe or (self.is_unsafe is not None and self.is_unsafe(example))
        in_language = functools.partial(speaks, caption) if speaks else None
        words = len(verdict.words)
        verdict.rule = filters.broken_text_rule(words, counted, self.rules, unsafe, in_language)
        return verdict

    def judged_text(
        self, example: Example, index: int, caption: object
    ) -> tuple[Verdict, bytes | None]:
        """Judges a pair by its text alone: whether it is usable, and its record.

        Args:
            example: example of the pair.
            index: index of the caption among the example's captions.
            caption: the caption, or another value in its place.

        Returns:
            The verdict, with no rule other than ``unusable_row``, and the record or None.
        """
        verdict = self._verdict(example, index, caption)
        record = None if verdict.rule else self._make_record(example, b"", verdict)
        return verdict, record

    def _verdict(self, example: Example, index: int, caption: object) -> Verdict:
        key = pair_key(self.seed, example.key, index)
        reason = _unusable(example, caption)
        if reason is not None or not isinstance(caption, str):
            return Verdict(key, caption, [], "unusable_row", reason)
        return Verdict(key, caption, filters.unigrams(caption))

    def _read(self, judged: Iterable[_Judged]) -> Iterator[_Read]:
        """Yields examples and verdicts, with the image if the text does not already rule it out."""
        for example, verdicts in judged:
            wanted = any(verdict.rule is None for verdict in verdicts)
            yield example, verdicts, _read(example, self) if wanted else Picture()

    def _finished(self, window: list[_Read], tally: Tally) -> Iterator[tuple[str, bytes]]:
        """Yields the records of a window, after judging its images."""
        if self.near_duplicates is not None:
            pictures = (picture for _, _, picture in window)
            usable = [picture for picture in pictures if picture.jpg and picture.rule is None]
            found = self.near_duplicates.find([picture.jpg or b"" for picture in usable])
            for picture, duplicate in zip(usable, found, strict=True):
                if duplicate is not None:
                    picture.rule = "near_duplicate"
                    picture.twin = self.near_duplicates.thumbnail(duplicate)
        for example, verdicts, picture in window:
            for verdict in verdicts:
                record = None
                if verdict.rule is None:
                    verdict.rule, verdict.reason = picture.rule, picture.reason
                if verdict.rule is None:
                    record = self._make_record(example, picture.jpg or b"", verdict)
                tally.add(example, verdict, picture)
                if record is not None:
                    yield verdict.key, record

    def _make_record(self, example: Example, jpg: bytes, verdict: Verdict) -> bytes | None:
        """The record of a pair; None, after changing the verdict, if a field cannot be stored."""
        caption = str(verdict.caption).strip()
        try:
            if self.table_only:
                fields = {"url": example.image_id, "caption": caption, **example.carried}
                return json.dumps(fields, ensure_ascii=False).encode()
            return records.make_record(
                jpg, caption, verdict.key, image_id=example.image_id, **example.carried
            )
        except (TypeError, ValueError):
            verdict.rule = "unusable_row"
            verdict.reason = _unstorable(example)
            return None


def pair_key(seed: int, key: str, index: int) -> str:
    """The name and sort key of a pair: 16 hexadecimal digits.

    Args:
        seed: seed of the preparation.
        key: key of the example.
        index: index of the caption among the example's captions.
    """
    # The name of a shard may contain bytes that are not text.
    text = f"{seed} {key} {index}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _unstorable(example: Example) -> str:
    """Names the first carried field whose value cannot be stored in a record, with its type."""
    for name, value in example.carried.items():
        try:
            records.make_record(b"", "", "", **{name: value})
        except (TypeError, ValueError):
            return f"{name} cannot be stored in a record ({type(value).__name__})"
    return "pair cannot be stored"


def _unusable(example: Example, caption: object) -> str | None:
    return example.fault or caption_fault(caption)


def _read(example: Example, preparation: Preparation) -> Picture:
    """Reads an image, unless the source states a size that breaks a rule."""
    picture, rules = Picture(size=example.size), preparation.rules
    if example.size is not None:
        picture.rule = filters.broken_size_rule(*example.size, rules)
        if picture.rule is not None:
            return picture
    if preparation.table_only:
        return picture
    try:
        picture.data = example.load()
    except UNREADABLE as error:
        picture.rule, picture.reason = "unreadable_image", fault_of(error)
    return picture


def _examine(item: _Read, rules: filters.Rules) -> None:
    """Judges the size of an image that has been read, and decodes it."""
    picture = item[-1]
    if (data := picture.data) is None:
        return
    picture.size = picture.size or encoding.image_size(data)
    if picture.size is not None:
        picture.rule = filters.broken_size_rule(*picture.size, rules)
        if picture.rule is not None:
            return
    try:
        picture.jpg = encoding.to_jpeg(data)
    except ImageFaultError as error:
        picture.rule, picture.reason = "unreadable_image", f"image {error}"
        return
    picture.is_turned = read_orientation(data) != AS_STORED
