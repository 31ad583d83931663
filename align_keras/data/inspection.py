"""Reads shards before a long run and reports what they hold."""

import array
import concurrent.futures
import hashlib
import itertools
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tokenizers

from align_keras.data import checks, paper_rules, records
from align_keras.data.inspection_numbers import repeats_of, share_of, spread_of
from align_keras.data.pairs import image_id_of
from align_keras.errors import InputError
from align_keras.preprocessing.decoding import decoder, faults, orientation

#: Faults that prevent a run, and faults that a run skips and counts.
REFUSED = ("not a pair", "no readable record in the shard")
SKIPPED = ("corrupt record", "empty caption", "image does not decode", "image has too many pixels")
#: Parts of a pair that may repeat, each compared by a hash.
REPEATABLE = ("pair", "image", "caption", "image_id")
_NUMBERS = ("width", "height", "bytes", "unigrams", "characters", "word_pieces")
_EXAMPLES = 5
_CHUNK = 256
_ODD = 0x9E3779B97F4A7C15  # mixes two hashes into one
# Captions are equal if they are equal after BERT's normalisation, as in training.
_NORMALIZER = tokenizers.normalizers.BertNormalizer(lowercase=True)


def examine(shard: str, index: int, record: bytes | None) -> dict[str, Any]:
    """The contents of one record, decoded by the training pipeline's own decoder.

    Args:
        shard: path of the shard.
        index: index of the record in the shard, from 0.
        record: the serialised record; None if it is corrupt.

    Returns:
        A dict with ``shard`` and ``index``. If a run cannot use the record, it also has ``fault``
        (one of ``REFUSED`` or ``SKIPPED``) and ``detail``. Otherwise it has ``jpg``; ``text``, the
        caption; the numbers ``width`` and ``height`` of the upright image in pixels, ``bytes``,
        ``turned`` (1 if EXIF turns the image, else 0), ``unigrams`` and ``characters``; and the
        64-bit hashes ``pair``, ``image``, ``caption`` and ``image_id`` (0 if absent). Captions that
        are equal after BERT's normalisation share a hash, as in training.
    """
    place: dict[str, Any] = {"shard": shard, "index": index}
    if record is None:
        return {**place, "fault": "corrupt record", "detail": ""}
    try:
        fields = checks.check_pair(shard, index, record)
    except checks.NoExampleError as error:
        return {**place, "fault": "corrupt record", "detail": f"{error.problem}; {error.remedy}"}
    except InputError as error:
        return {**place, "fault": "not a pair", "detail": f"{error.problem}; {error.remedy}"}
    text = fields["txt"].decode("utf-8")
    if not paper_rules.has_words(text):
        return {**place, "fault": "empty caption", "detail": ""}
    try:
        height, width, _ = decoder.decode_pixels(fields["jpg"]).shape
    except faults.ImageFaultError as error:
        fault, detail = f"image {error}", f"{len(fields['jpg']):,} bytes"
        if fault not in SKIPPED:
            fault, detail = f"image {faults.UNDECODABLE}", f"it {error}, {detail}"
        return {**place, "fault": fault, "detail": detail}
    caption = " ".join(_NORMALIZER.normalize_str(text).split()).encode()
    image_id = image_id_of(record)
    return {
        **place,
        "jpg": fields["jpg"],
        "text": text,
        "width": width,
        "height": height,
        "bytes": len(fields["jpg"]),
        "turned": int(decoder.read_orientation(fields["jpg"]) != orientation.AS_STORED),
        "unigrams": len(paper_rules.unigrams(text)),
        "characters": len(text),
        "pair": _hash(_hash(fields["jpg"]).to_bytes(8, "little") + caption),
        "image": _hash(fields["jpg"]),
        "caption": _hash(caption),
        "image_id": _hash(image_id) if image_id else 0,
    }


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Inspection:
    """Collects the contents of shards in about 100 bytes per record, without decoded pixels.

    ``counts`` holds the number of records of each shard read, by path, as the pipeline needs it.

    Args:
        count_word_pieces: returns the number of word pieces of each caption in a list; None to
            leave these numbers out.
        num_samples: number of pairs to choose at random.
        seed: random seed of that choice.
    """

    def __init__(
        self,
        count_word_pieces: Callable[[list[str]], Sequence[int]] | None = None,
        num_samples: int = 0,
        seed: int = 0,
    ) -> None:
        self.count_word_pieces = count_word_pieces
        self.num_samples = num_samples
        self.counts: dict[str, int] = {}
        self.records = self.usable = 0
        self.complete = True
        self.faults: dict[str, dict[str, Any]] = {
            kind: {"count": 0, "examples": []} for kind in (*REFUSED, *SKIPPED)
        }
        self._samples: dict[int, dict[str, Any]] = {}
        self._random = random.Random(seed)
        names = (*_NUMBERS, "turned", *REPEATABLE, "shard", "index")
        self._columns: dict[str, array.array] = {name: array.array("Q") for name in names}

    def read_shard(self, shard: str, limit: int) -> None:
        """Reads and decodes up to ``limit`` records, on every core."""
        self.counts[shard] = counted = records.count_records(shard)
        numbered = enumerate(itertools.islice(records.read_frames(shard), limit))
        read, usable_before = 0, self.usable
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            while chunk := list(itertools.islice(numbered, _CHUNK)):
                read += len(chunk)
                self._add(list(pool.map(lambda item: examine(shard, *item), chunk)))
        if read < limit and read < counted:
            lost = counted - read
            self._add_fault("corrupt record", shard, f"ends early, {lost:,} records lost", lost)
            read = counted
        self.complete &= read >= counted
        self.records += read
        if self.usable == usable_before:
            self._add_fault("no readable record in the shard", shard, _kind_of(shard))

    def _add_fault(self, kind: str, where: str, detail: str, count: int = 1) -> None:
        self.faults[kind]["count"] += count
        if len(self.faults[kind]["examples"]) < _EXAMPLES:
            self.faults[kind]["examples"].append(f"{where}: {detail}" if detail else where)

    def _add(self, looked_at: list[dict[str, Any]]) -> None:
        pairs = []
        for pair in looked_at:
            if "fault" in pair:
                where = f"{pair['shard']}: record {pair['index']}"
                self._add_fault(pair["fault"], where, pair["detail"])
            else:
                pairs.append(pair)
        if not pairs:
            return
        lengths: Sequence[int] = [0] * len(pairs)
        if self.count_word_pieces:
            lengths = self.count_word_pieces([pair["text"] for pair in pairs])
        for pair, length in zip(pairs, lengths, strict=True):
            row = {**pair, "word_pieces": int(length), "shard": len(self.counts) - 1}
            for name, column in self._columns.items():
                column.append(row[name])
            self.usable += 1
            # Reservoir sampling: every pair so far is among the samples with the same probability.
            slot = self._random.randrange(self.usable)
            if self.usable <= self.num_samples:
                self._samples[self.usable - 1] = pair
            elif slot < self.num_samples:
                self._samples[slot] = pair

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The chosen pairs, as returned by ``examine``, in the order of the shards."""
        return sorted(self._samples.values(), key=lambda pair: (pair["shard"], pair["index"]))

    def report(self) -> dict[str, Any]:
        """The findings as a dict for JSON.

        ``shards``; ``records``, those read or lost because a shard ends early; ``complete``,
        whether these are all records; ``usable``; ``turned_upright``, the number of images that
        EXIF turns; ``faults``, by kind, with ``count`` and the first places as ``examples``;
        ``images`` and ``captions``, the spread of each number; ``repeats``, by kind, as from
        ``repeats_of``, and ``image_ids_missing``; ``shares``, the fractions of images and captions
        that break the paper's rules (sec. 3).
        """
        columns = {name: np.frombuffer(column, "u8") for name, column in self._columns.items()}
        short = np.minimum(columns["width"], columns["height"])
        aspect_ratio = np.maximum(columns["width"], columns["height"]) / np.maximum(short, 1)
        spreads = {
            "images": {
                "width": columns["width"],
                "height": columns["height"],
                "shorter_side": short,
                "aspect_ratio": aspect_ratio,
                "bytes": columns["bytes"],
            },
            "captions": {name: columns[name] for name in ("unigrams", "characters")},
        }
        if self.count_word_pieces:
            spreads["captions"]["word_pieces"] = columns["word_pieces"]
        return {
            "shards": len(self.counts),
            "records": self.records,
            "complete": self.complete,
            "usable": self.usable,
            "turned_upright": int(columns["turned"].sum()),
            "faults": self.faults,
            **{
                part: {name: spread_of(values) for name, values in numbers.items()}
                for part, numbers in spreads.items()
            },
            "repeats": self._repeats(columns),
            "shares": _shares_outside_the_rules(short, aspect_ratio, columns["unigrams"]),
        }

    def _repeats(self, columns: dict[str, np.ndarray]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        shards = list(self.counts)
        for kind in REPEATABLE:
            counts = repeats_of(columns[kind])
            row = counts.pop("row")
            if row is not None:
                shard, index = shards[columns["shard"][row]], columns["index"][row]
                record = next(itertools.islice(records.read_frames(shard), int(index), None)) or b""
                counts["example"] = f"{shard}: record {index}"
                counts["caption"] = records.parse_pair(record)["txt"].decode("utf-8")
            found[kind] = counts
        image, image_id = columns["image"], columns["image_id"]
        found["image_ids_missing"] = int(np.count_nonzero(image_id == 0))
        # Copies that training treats as different images, so that each is a negative of the other's
        # caption.
        rows = np.arange(len(image), dtype="u8")
        distinct = image ^ (np.where(image_id == 0, rows, image_id) * np.uint64(_ODD))
        _, first = np.unique(distinct, return_index=True)
        found["images_under_several_ids"] = repeats_of(image[first])["records"]
        return found


def _kind_of(shard: str) -> str:
    """The kind of a shard that is not a TFRecord, and how to convert it; empty if unknown."""
    try:
        records.check_kind(shard)
    except InputError as error:
        return f"{error.problem}; {error.remedy}"
    return ""


def _shares_outside_the_rules(
    short: np.ndarray, aspect_ratio: np.ndarray, unigrams: np.ndarray
) -> dict[str, float]:
    """Fractions of the records that the paper's filter would drop, by rule."""
    side, aspect = paper_rules.MIN_SIDE_ABOVE, paper_rules.MAX_ASPECT_BELOW
    fewest, most = paper_rules.MIN_WORDS, paper_rules.MAX_WORDS
    return {
        f"shorter side of {side} pixels or less": share_of(short <= side),
        f"aspect ratio of {aspect:g} or more": share_of(aspect_ratio >= aspect),
        f"fewer than {fewest} unigrams": share_of(unigrams < fewest),
        f"more than {most} unigrams": share_of(unigrams > most),
    }
