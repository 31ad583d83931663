"""Sources that are mixed by weight."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from align_keras.data import image_groups, mixing, pipeline, records
from align_keras.data.pairs import parse_pairs
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError

WEIGHTS = [5, 2, 1, 3]


def test_the_source_of_a_position_is_that_of_a_walk_and_weights_are_met_within_one_record():
    found = mixing.source_of(tf.range(1000, dtype=tf.int64)[:, None], WEIGHTS[:1]).numpy()
    assert not found.any()
    sources = [int(mixing.source_of(tf.constant(n, tf.int64), WEIGHTS)) for n in range(60)]
    walked = np.cumsum(np.eye(4, dtype=int)[sources], axis=0)
    for position in range(1, 61):
        before = mixing.counts_before(position, WEIGHTS)
        assert before == walked[position - 1].tolist()
        shares = position * np.array(WEIGHTS) / sum(WEIGHTS)
        assert np.abs(before - shares).max() < 1


def test_a_late_position_is_counted_exactly():
    weights = [(1 << 30) - 3, 12_345_677, 3]
    position = (1 << 40) + 12_345
    counts = mixing.counts_before(tf.constant(position, tf.int64), weights)
    assert [int(count) for count in counts] == mixing.counts_before(position, weights)
    assert sum(map(int, counts)) == position


@pytest.mark.parametrize("weight", ["0", "-1", "two", "", "nan", "1e99999x"])
def test_a_weight_that_is_no_number_above_0_is_refused(weight):
    with pytest.raises(InputError, match=r"of 'a/\*\.tfrecord' is not a number above 0"):
        mixing.split_weights(f"a/*.tfrecord={weight},b/*.tfrecord=1")


@pytest.mark.parametrize("text", ["a/*.tfrecord=2,b/*.tfrecord", "b/*.tfrecord,a/*.tfrecord=2"])
def test_a_pattern_without_weight_beside_weighted_ones_is_refused(text):
    line = r"'b/\*\.tfrecord' has no weight, but other patterns do; give 'b/\*\.tfrecord=1'"
    with pytest.raises(InputError, match=line):
        mixing.split_weights(text)


def test_weights_are_read_and_plain_patterns_left_alone():
    assert mixing.split_weights("a=2/x-*,b,c") == [("a=2/x-*,b,c", None)]
    assert mixing.split_weights("a/*=0.5,b/*=2") == [("a/*", Fraction(1, 2)), ("b/*", Fraction(2))]
    assert mixing.whole_weights([Fraction(1, 2), Fraction(2)]) == [1, 4]


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    """Two sources of 30 and 9 records; ids are consecutive over both."""
    folder, ids, sources = tmp_path_factory.mktemp("mixed"), itertools.count(), []
    for name, size, weight in (("b", 30, 2), ("a", 9, 1)):
        with ShardWriter(str(folder / name), 10) as writer:
            for number in itertools.islice(ids, size):
                writer.write(records.make_record(b"", "", str(number), image_id=f"{number}"))
        sources.append(mixing.Source(writer.shards, weight))
    return pipeline.shard_counts([path for own in sources for path in own.shards]), sources


def read(two_sources, count, position=0, worker=0, num_workers=1, groups=()):
    counts, sources = two_sources
    mixed = pipeline._mixed(counts, sources, groups, position, 8, (3, worker, num_workers))
    found = list(mixed.take(count).as_numpy_iterator())
    ids = parse_pairs(tf.stack([record for _, (record, _) in found])).image_id
    paths = [sorted(counts)[shard] for _, (_, shard) in found]
    return [int(number) for number in ids.numpy()], paths


def test_a_mix_keeps_each_sources_epochs_names_its_shards_and_resumes(two_sources):
    ids, paths = read(two_sources, 90)
    sources = [int(mixing.source_of(tf.constant(n, tf.int64), [2, 1])) for n in range(90)]
    assert [int(number >= 30) for number in ids] == sources
    assert all(path in two_sources[1][own].shards for path, own in zip(paths, sources, strict=True))
    of_b, of_a = ([n for n in ids if (n >= 30) == own] for own in (False, True))
    assert sorted(of_b[:30]) == sorted(of_b[30:]) == list(range(30))
    assert sorted(of_a[:9]) == sorted(of_a[9:18]) == sorted(of_a[18:27]) == list(range(30, 39))
    assert of_a[:9] != of_a[9:18]
    assert read(two_sources, 50, position=40) == (ids[40:], paths[40:])


def test_workers_read_disjoint_parts_of_each_source(two_sources):
    # 3 workers read 27 positions each: 18 and 9 records, from parts of 10 and 3 records.
    parts = [read(two_sources, 15, worker=worker, num_workers=3)[0] for worker in range(3)]
    first = [[n for n in part if n < 30][:10] for part in parts]
    assert sorted(itertools.chain(*first)) == list(range(30))
    first = [[n for n in part if n >= 30][:3] for part in parts]
    assert sorted(itertools.chain(*first)) == list(range(30, 39))


def test_sources_of_images_have_one_record_of_each_in_an_epoch_of_their_own(two_sources):
    groups = [image_groups.group(1 + np.arange(size) // 3) for size in (30, 9)]
    ids, paths = read(two_sources, 90, groups=groups)
    of_b, of_a = ([n for n in ids if (n >= 30) == own] for own in (False, True))
    # Positions alternate as without groups, but an epoch now has 10 images and 3 images.
    for first in range(0, 60, 10):
        assert sorted(n // 3 for n in of_b[first : first + 10]) == list(range(10))
    for first in range(0, 30, 3):
        assert sorted((n - 30) // 3 for n in of_a[first : first + 3]) == list(range(3))
    assert sorted(of_b[:30]) == list(range(30)) and sorted(of_a[:9]) == list(range(30, 39))
    assert read(two_sources, 50, position=40, groups=groups) == (ids[40:], paths[40:])
    parts = [read(two_sources, 15, worker=n, num_workers=3, groups=groups)[0] for n in range(3)]
    first = [[n for n in part if n >= 30][:1] for part in parts]
    assert sorted((n - 30) // 3 for n in itertools.chain(*first)) == list(range(3))
