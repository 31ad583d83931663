"""Reads shards before a long run and accounts for what is in them."""

import array
import concurrent.futures
import hashlib
import itertools
import os
import random
import time

import numpy as np
import tensorflow as tf

from align_keras.data import checks, pipeline, records
from align_keras.preprocessing import images

#: Faults that no run starts with, and those that a run passes over and counts.
REFUSED = ("not a pair", "no readable record in the shard")
SKIPPED = ("corrupt record", "empty caption", "image does not decode", "image has too many pixels")
#: What may repeat: hashes of a pair's parts.
REPEATABLE = ("pair", "image", "caption", "image_id")
_NUMBERS = ("width", "height", "bytes", "unigrams", "characters", "word_pieces")
_EXAMPLES = 5
_CHUNK = 256
_ODD = 0x9E3779B97F4A7C15  # mixes two hashes into one
_decode = tf.function(images.decode, input_signature=[tf.TensorSpec([], tf.string)])


def examine(shard, index, record):
    """What one record holds, decoded by the training pipeline's own decoder.

    Args:
        shard: its path.
        index: its place in the shard, from 0.
        record: the serialised record; None if it is corrupt.

    Returns:
        A dict of ``shard``, ``index`` and, if a run could not use it, ``fault`` (of ``REFUSED``
        or ``SKIPPED``) and ``detail``; else of ``jpg``, ``text`` (the caption), the numbers
        ``width``, ``height``, ``bytes``, ``unigrams``, ``characters``, and 64-bit hashes
        ``pair``, ``image``, ``caption``, ``image_id`` (0 without one). Captions that differ in
        case or outer blanks alone share a hash, as in training.
    """
    place = {"shard": shard, "index": index}
    if record is None:
        return {**place, "fault": "corrupt record", "detail": ""}
    try:
        fields = checks.check_pair(shard, index, record)
    except ValueError as error:
        return {**place, "fault": "not a pair", "detail": str(error).removeprefix(f"{shard}: ")}
    text = fields["txt"].decode("utf-8")
    if not text.strip():
        return {**place, "fault": "empty caption", "detail": ""}
    try:
        height, width, _ = _decode(fields["jpg"]).shape
    except tf.errors.OpError as error:
        large = "too many pixels" in error.message
        fault = "image has too many pixels" if large else "image does not decode"
        return {**place, "fault": fault, "detail": f"{len(fields['jpg']):,} bytes"}
    caption = text.lower().strip().encode()
    image_id = records.image_id_of(record)
    return {
        **place,
        "jpg": fields["jpg"],
        "text": text,
        "width": width,
        "height": height,
        "bytes": len(fields["jpg"]),
        "unigrams": len(text.split()),
        "characters": len(text),
        "pair": _hash(_hash(fields["jpg"]).to_bytes(8, "little") + caption),
        "image": _hash(fields["jpg"]),
        "caption": _hash(caption),
        "image_id": _hash(image_id) if image_id else 0,
    }


def _hash(data):
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Inspection:
    """What shards hold, in about 100 bytes a record; its pixels are dropped once decoded.

    ``counts`` has the number of records of each shard read, by path, as the pipeline takes them.

    Args:
        count_word_pieces: gives the numbers of word pieces of a list of captions; None to leave
            them out.
        num_samples: how many pairs to choose at random.
        seed: decides which.
    """

    def __init__(self, count_word_pieces=None, num_samples=0, seed=0):
        self.count_word_pieces = count_word_pieces
        self.num_samples = num_samples
        self.counts = {}
        self.records = self.usable = 0
        self.complete = True
        self.faults = {kind: {"count": 0, "examples": []} for kind in (*REFUSED, *SKIPPED)}
        self._samples = {}
        self._random = random.Random(seed)
        self._columns = {name: array.array("Q") for name in (*_NUMBERS, *REPEATABLE)}
        self._columns |= {name: array.array("Q") for name in ("shard", "index")}

    def read_shard(self, shard, limit):
        """Reads up to ``limit`` records and decodes them on every core."""
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
            self._add_fault("no readable record in the shard", shard, "", 1)

    def _add_fault(self, kind, where, detail, count=1):
        self.faults[kind]["count"] += count
        if len(self.faults[kind]["examples"]) < _EXAMPLES:
            self.faults[kind]["examples"].append(f"{where}: {detail}" if detail else where)

    def _add(self, looked_at):
        pairs = []
        for pair in looked_at:
            if "fault" in pair:
                where = f"{pair['shard']}: record {pair['index']}"
                self._add_fault(pair["fault"], where, pair["detail"])
            else:
                pairs.append(pair)
        if not pairs:
            return
        lengths = [0] * len(pairs)
        if self.count_word_pieces:
            lengths = self.count_word_pieces([pair["text"] for pair in pairs])
        for pair, length in zip(pairs, lengths, strict=True):
            row = {**pair, "word_pieces": int(length), "shard": len(self.counts) - 1}
            for name, column in self._columns.items():
                column.append(row[name])
            self.usable += 1
            # Each of the pairs so far is among the samples with the same chance.
            slot = self._random.randrange(self.usable)
            if self.usable <= self.num_samples:
                self._samples[self.usable - 1] = pair
            elif slot < self.num_samples:
                self._samples[slot] = pair

    @property
    def samples(self):
        """The chosen pairs, as ``examine`` gives them, in the shards' order."""
        return sorted(self._samples.values(), key=lambda pair: (pair["shard"], pair["index"]))

    def report(self):
        """All that was found, a dict for JSON.

        ``shards``, ``records`` (read, or lost where a shard ends early), ``complete`` (whether
        those are all there are), ``usable``; ``faults``: by kind, ``count`` and the first places
        as ``examples``; ``images`` and ``captions``: the spread of each number; ``repeats``: by
        kind as ``repeats_of`` gives them, and ``image_ids_missing``; ``shares``: of images and
        captions that are outside the paper's rules (sec. 3).
        """
        columns = {name: np.frombuffer(column, "u8") for name, column in self._columns.items()}
        short, long = (f(columns["width"], columns["height"]) for f in (np.minimum, np.maximum))
        aspect_ratio = long / np.maximum(short, 1)
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
        unigrams = columns["unigrams"]
        return {
            "shards": len(self.counts),
            "records": self.records,
            "complete": self.complete,
            "usable": self.usable,
            "faults": self.faults,
            **{
                part: {name: spread_of(values) for name, values in numbers.items()}
                for part, numbers in spreads.items()
            },
            "repeats": self._repeats(columns),
            "shares": {
                "shorter side of 200 pixels or less": share_of(short <= 200),
                "aspect ratio of 3 or more": share_of(aspect_ratio >= 3),
                "fewer than 3 unigrams": share_of(unigrams < 3),
                "more than 20 unigrams": share_of(unigrams > 20),
            },
        }

    def _repeats(self, columns):
        found, shards = {}, list(self.counts)
        for kind in REPEATABLE:
            counts = repeats_of(columns[kind])
            row = counts.pop("row")
            if row is not None:
                shard, index = shards[columns["shard"][row]], columns["index"][row]
                record = next(itertools.islice(records.read_frames(shard), int(index), None))
                counts["example"] = f"{shard}: record {index}"
                counts["caption"] = records.parse_pair(record)["txt"].decode("utf-8")
            found[kind] = counts
        image, image_id = columns["image"], columns["image_id"]
        found["image_ids_missing"] = int(np.count_nonzero(image_id == 0))
        # Copies that training takes for different images, each a negative of the other's caption.
        rows = np.arange(len(image), dtype="u8")
        told_apart = image ^ (np.where(image_id == 0, rows, image_id) * np.uint64(_ODD))
        _, first = np.unique(told_apart, return_index=True)
        found["images_under_several_ids"] = repeats_of(image[first])["records"]
        return found


def spread_of(values):
    """Quantiles and mean of numbers, a dict; None for none."""
    if not len(values):
        return None
    names = ("min", "p5", "median", "p95", "max")
    quantiles = np.quantile(values, [0, 0.05, 0.5, 0.95, 1])
    return {name: float(value) for name, value in zip(names, quantiles, strict=True)} | {
        "mean": float(np.mean(values))
    }


def share_of(flags):
    """The share that is True, 0 of none."""
    return float(np.mean(flags)) if len(flags) else 0.0


def repeats_of(hashes):
    """How often values repeat; 0 stands for none and does not count.

    Args:
        hashes: uint64, ``(records,)``.

    Returns:
        A dict of ``records`` (those that repeat an earlier one), ``most`` (how often the most
        frequent value stands), ``over_10`` (records whose value stands more than 10 times, which
        the paper drops for captions) and ``row`` (the first of the most frequent; None if there
        is no repeat).
    """
    rows = np.flatnonzero(hashes)
    if not len(rows):
        return {"records": 0, "most": 0, "over_10": 0, "row": None}
    _, first, counts = np.unique(hashes[rows], return_index=True, return_counts=True)
    most = int(counts.max())
    return {
        "records": int(len(rows) - len(counts)),
        "most": most,
        "over_10": int(counts[counts > 10].sum()),
        "row": int(rows[first[counts == most].min()]) if most > 1 else None,
    }


def measure_throughput(counts, preprocessor, batch_size, seconds, seed=0):
    """Images a second of the training pipeline itself, on whatever else the machine does.

    Args:
        counts: the number of records of each shard, by path.
        preprocessor: an ``AlignPreprocessor`` with a vocabulary.
        batch_size: pairs; as many as there are if these are fewer.
        seconds: how long to draw batches; at least two are drawn.
        seed: of the pipeline.
    """
    batch_size = min(batch_size, sum(counts.values()))
    batches = iter(pipeline.training_dataset(counts, preprocessor, batch_size, seed=seed))
    next(batches)
    start, drawn = time.perf_counter(), 0
    while drawn < 2 or time.perf_counter() - start < seconds:
        next(batches)
        drawn += 1
    return drawn * batch_size / (time.perf_counter() - start)
