"""The rules as one Apache Beam pipeline, for any runner and any number of pairs.

The parts of the source are read twice: first for the words and image ids to be counted, then for
the records, which are judged with the counts of their part. Images therefore never take part in a
join, and kept records are sent only once, to their shards. The shards equal those of
``single_machine`` byte for byte.
"""

import bisect
import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from align_keras.data.preparation import filter_report, filters
from align_keras.data.preparation.judging import Preparation
from align_keras.data.shard_sets import shard_path
from align_keras.data.shard_writer import write_shard

# Number of leading hexadecimal digits that group keys and ties: 4,096 and 65,536 ranges.
_KEY_DIGITS = 3
_TIE_DIGITS = 4


def build(pipeline: beam.Pipeline, preparation: Preparation, output: str, shard_size: int) -> None:
    """Adds all steps to a ``beam.Pipeline``."""
    parts = pipeline | "parts" >> beam.Create(list(enumerate(preparation.source.parts)))
    if preparation.rules.needs_counts:
        pairs = parts | "spread" >> beam.Reshuffle() | beam.ParDo(_Pairs(preparation))
        counts = whole_set_counts(pairs, preparation.rules)
    else:
        counts = pipeline | "no counts" >> beam.Create([])
    judged = {"part": parts, "counts": counts} | "counts of parts" >> beam.CoGroupByKey()
    kept = judged | beam.ParDo(_Kept(preparation)).with_outputs("tally", "left_out", main="kept")
    if preparation.table_only:
        lines = kept.kept | "lines" >> beam.Map(lambda item: item[1].decode())
        _ = lines | "kept" >> beam.io.WriteToText(f"{output}-kept", ".jsonl")
    else:
        _write_shards(kept.kept, output, shard_size)
    _ = kept.left_out | beam.io.WriteToText(
        f"{output}-left_out", ".jsonl", num_shards=1, shard_name_template=""
    )
    _ = (
        kept.tally
        | "tally" >> beam.CombineGlobally(_merge)
        | beam.Map(lambda tally: json.dumps(tally.as_json(preparation.rules), ensure_ascii=False))
        | "report"
        >> beam.io.WriteToText(f"{output}-report", ".json", num_shards=1, shard_name_template="")
    )


def _merge(tallies: Iterable[filter_report.Tally]) -> filter_report.Tally:
    total = filter_report.Tally()
    for tally in tallies:
        total.merge(tally)
    return total


class _Pairs(beam.DoFn):
    """``(number, part)`` -> ``(pair, image, text, ngrams)``.

    A pair is identified by the numbers of its part, row and caption.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    def process(self, part: tuple[int, str]) -> Iterator[tuple]:
        """Reads a part, without images."""
        number, name = part
        for row, caption, image, words in self._preparation.pairs(name):
            yield (number, row, caption), image, " ".join(words), filters.ngrams(words)


class _Kept(beam.DoFn):
    """A part and the counts of its pairs -> kept records, dropped pairs and a ``Tally``."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    def process(self, judged: tuple) -> Iterator[Any]:
        """Judges a part."""
        _, grouped = judged
        (part,) = grouped["part"]
        tally = filter_report.Tally()
        counts = sorted(grouped["counts"], key=lambda count: count[:2])
        yield from self._preparation.kept(part, counts, tally)
        for pair in tally.left_out:
            yield beam.pvalue.TaggedOutput("left_out", json.dumps(pair))
        tally.left_out = []
        yield beam.pvalue.TaggedOutput("tally", tally)


# === Counts ===


def whole_set_counts(pairs: beam.PCollection, rules: filters.Rules) -> beam.PCollection:
    """The counts of pairs that exceed a limit: ``(part, (row, caption, filters.Counts))``."""
    flags = []
    distinct = pairs | beam.Map(lambda pair: (pair[1], pair[2])) | beam.Distinct()
    if rules.max_images_per_caption is not None:
        flags.append(
            _exceeding("images_of_caption", pairs, distinct, 1, rules.max_images_per_caption)
        )
    if rules.max_captions_per_image is not None:
        flags.append(
            _exceeding("captions_of_image", pairs, distinct, 0, rules.max_captions_per_image)
        )
    if rules.frequent_ngrams is not None:
        flags.append(_with_rare_ngrams(pairs, rules.frequent_ngrams))
    return (
        flags
        | "all flags" >> beam.Flatten()
        | "flags of pairs" >> beam.GroupByKey()
        | beam.MapTuple(lambda pair, found: (pair[0], (*pair[1:], filters.Counts(**dict(found)))))
    )


def _exceeding(name, pairs, distinct, field, limit):
    """``(pair, (name, count))`` of pairs whose image (0) or text (1) exceeds the limit."""
    counted = (
        distinct
        | f"{name} of" >> beam.Map(lambda image_and_text: image_and_text[field])
        | f"count {name}" >> beam.combiners.Count.PerElement()
        | f"exceeding {name}" >> beam.Filter(lambda item: item[1] > limit)
    )
    keyed = pairs | f"key {name}" >> beam.Map(lambda pair: (pair[1 + field], pair[0]))
    return _join(name, keyed, counted)


def _join(name, keyed, counted):
    """``(pair, (name, value))`` for each pair whose key has a value."""

    def join(_, grouped):
        for value in grouped["value"]:
            for pair in grouped["pairs"]:
                yield pair, (name, value)

    groups = {"pairs": keyed, "value": counted} | f"join {name}" >> beam.CoGroupByKey()
    return groups | f"flag {name}" >> beam.FlatMapTuple(join)


def _with_rare_ngrams(pairs, most):
    """``(pair, ("rare_ngram", True))`` of pairs with an n-gram outside the ``most`` frequent."""
    keyed = pairs | "ngrams" >> beam.FlatMap(
        lambda pair: ((ngram, pair[0]) for ngram in set(pair[3]))
    )
    counted = (
        pairs
        | "all ngrams" >> beam.FlatMap(lambda pair: pair[3])
        | "count ngrams" >> beam.combiners.Count.PerElement()
    )
    cutoff = (
        counted
        | beam.Values()
        | "histogram" >> beam.combiners.Count.PerElement()
        | "as dict" >> beam.combiners.ToDict()
        | beam.Map(filters.cutoff, most)
    )
    bound = _tie_bound(counted, cutoff)
    rare = counted | beam.Filter(
        _is_rare, beam.pvalue.AsSingleton(cutoff), beam.pvalue.AsSingleton(bound)
    )
    return _join("rare_ngram", keyed, rare | beam.Map(lambda item: (item[0], True)))


def _tie_bound(counted, cutoff):
    """The smallest ``filters.tie_break`` among the n-grams with the cutoff count that are rare.

    In two steps, since there may be millions of ties: finds the range that holds it, then sorts
    that range.
    """
    cutoff = beam.pvalue.AsSingleton(cutoff)
    ties = (
        counted
        | beam.Filter(lambda item, cutoff: cutoff is not None and item[1] == cutoff.count, cutoff)
        | beam.Map(lambda item: filters.tie_break(item[0]))
    )
    place = (
        ties
        | beam.Map(lambda tie: tie[:_TIE_DIGITS])
        | "ties by range" >> beam.combiners.Count.PerElement()
        | "ranges as dict" >> beam.combiners.ToDict()
        | "place of bound" >> beam.Map(_place_of_bound, cutoff)
    )
    return (
        ties
        | "ties in range"
        >> beam.Filter(
            lambda tie, place: tie[:_TIE_DIGITS] == place[0], beam.pvalue.AsSingleton(place)
        )
        | "ties of range" >> beam.combiners.ToList()
        | beam.Map(
            lambda ties, place: sorted(ties)[place[1]] if ties else "",
            beam.pvalue.AsSingleton(place),
        )
    )


def _place_of_bound(ranges, cutoff):
    return filters.place_of_bound(ranges, cutoff) if cutoff else ("", 0)


def _is_rare(item, cutoff, bound):
    if cutoff is None or item[1] > cutoff.count:
        return False
    return item[1] < cutoff.count or filters.tie_break(item[0]) >= bound


# === Shards ===


def _write_shards(kept, output, shard_size):
    """Sorts by key across all workers, and starts a new shard every ``shard_size`` records."""
    keys = kept | "keys" >> beam.Keys()
    ranges = (
        keys
        | "range" >> beam.Map(lambda key: key[:_KEY_DIGITS])
        | "count ranges" >> beam.combiners.Count.PerElement()
        | "ranges" >> beam.combiners.ToDict()
    )
    firsts = (
        keys
        | "key ranges" >> beam.Map(lambda key: (key[:_KEY_DIGITS], key))
        | "group ranges" >> beam.GroupByKey()
        | beam.FlatMap(_first_keys, beam.pvalue.AsSingleton(ranges), shard_size)
        | "first keys" >> beam.combiners.ToList()
        | "sorted first keys" >> beam.Map(sorted)
    )
    _ = (
        kept
        | "to shards"
        >> beam.Map(
            lambda item, firsts: (bisect.bisect_right(firsts, item[0]) - 1, item),
            beam.pvalue.AsSingleton(firsts),
        )
        | "group shards" >> beam.GroupByKey()
        | "in order" >> beam.MapTuple(lambda number, items: (number, [r for _, r in sorted(items)]))
        | "write" >> beam.MapTuple(lambda number, own: write_shard(shard_path(output, number), own))
    )


def _first_keys(group, ranges, shard_size):
    """Yields the keys of a range, ``(digits, keys)``, that are the first of a shard."""
    digits, keys = group
    start = sum(count for other, count in ranges.items() if other < digits)
    for place, key in enumerate(sorted(keys), start):
        if place % shard_size == 0:
            yield key
