"""How often records are seen and how well they are shuffled, counted over whole epochs."""

import collections
import gzip
import itertools

import numpy as np
import pytest
import tensorflow as tf

from align_keras.data import batches, framing, image_groups, pipeline, records, shard_order
from align_keras.data.block_reader import block_reader
from align_keras.data.pairs import parse_pairs
from align_keras.data.shard_writer import ShardWriter


def write_shards(folder, sizes):
    """Writes shards of small records; a record's key is its position among all records."""
    keys = itertools.count()
    shards = []
    for number, size in enumerate(sizes):
        with ShardWriter(str(folder / f"s{number:02}"), size) as writer:
            for key in itertools.islice(keys, size):
                writer.write(records.make_record(b"", "", str(key), image_id=f"{key}"))
        shards += writer.shards
    return shards


def stream_of(counts, worker=0, num_workers=1, buffer=1, start_batch=0, batch_size=10, groups=None):
    """The endless keys of a worker's records, starting at a given batch."""
    total = groups.images if groups else sum(counts.values())
    share = shard_order.Share(total, worker, num_workers)
    epoch_records = shard_order.epoch_of(counts, block_reader(counts), 3, share, groups)
    position = start_batch * batch_size
    dataset = batches.endless(epoch_records, share.place_of, position, 3, buffer)
    # Many at a time, since each conversion to NumPy takes longer than a record.
    dataset = dataset.batch(50).map(lambda place, record: (place, parse_pairs(record[0]).image_id))
    for positions, image_ids in dataset.as_numpy_iterator():
        yield from zip(map(int, positions), map(int, image_ids), strict=True)


def keys_of(stream, count):
    return [key for _, key in itertools.islice(stream, count)]


def rank_correlation(first, second):
    """Spearman's correlation of the positions of the same records in two epochs."""
    places = np.argsort(first), np.argsort(second)
    return np.corrcoef(*places)[0, 1]


@pytest.mark.parametrize(
    ("sizes", "num_workers"),
    [([40, 40, 40, 40, 40], 4), ([301, 7, 150, 2, 40], 4), ([333], 3), ([1] * 13, 5)],
)
def test_every_record_is_seen_equally_often_by_all_workers_together(sizes, num_workers, tmp_path):
    counts = pipeline.shard_counts(write_shards(tmp_path, sizes))
    total = sum(sizes)
    # Each worker takes as many steps as 3.2 epochs have.
    steps = int(3.2 * total / num_workers)
    seen = collections.Counter()
    for worker in range(num_workers):
        seen.update(keys_of(stream_of(counts, worker, num_workers, 20), steps))
    assert len(seen) == total
    assert set(seen.values()) == {3, 4}


@pytest.mark.parametrize(("total", "num_workers"), [(13, 5), (10, 2), (7, 7), (100, 3), (5, 1)])
def test_shares_of_an_epoch_follow_each_other_and_even_out(total, num_workers):
    shares = [shard_order.Share(total, worker, num_workers) for worker in range(num_workers)]
    read = np.zeros(num_workers, int)
    for epoch in range(2 * num_workers + 1):
        assert read.tolist() == [share.read_before(epoch) for share in shares]
        assert read.max() - read.min() <= 1
        bounds = [share.bounds(tf.constant(epoch, tf.int64)) for share in shares]
        edges = [int(first) for first, _ in bounds] + [total]
        assert [int(end) for _, end in bounds] == edges[1:]
        assert edges[0] == 0
        for worker, size in enumerate(np.diff(edges)):
            assert size - shares[worker].least in (0, 1)
            for place in range(size):
                assert shares[worker].place_of(read[worker] + place) == (epoch, place)
        read += np.diff(edges)


@pytest.mark.parametrize("sizes", [[4_000], [250] * 16])
def test_few_large_shards_are_shuffled_anew_each_epoch(sizes, tmp_path):
    """The buffer is a hundredth of the data. Shards read side by side would correlate by 0.98."""
    counts = pipeline.shard_counts(write_shards(tmp_path, sizes))
    keys = keys_of(stream_of(counts, buffer=40), 8_000)
    epochs = keys[:4_000], keys[4_000:]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(4_000))
    orders = (*epochs, list(range(4_000)))
    for first, second in itertools.combinations(orders, 2):
        # For 32 blocks in random order, the standard deviation of the correlation is 0.18.
        assert abs(rank_correlation(first, second)) < 0.36


def test_compressed_shards_are_read_whole_and_few_at_a_time(tmp_path):
    plain = write_shards(tmp_path, [60] * 16)
    shards = []
    for path in plain:
        shards.append(f"{path}.gz")
        with open(path, "rb") as source, gzip.open(shards[-1], "wb", 1) as target:
            target.write(source.read())
    counts = pipeline.shard_counts(shards)
    assert counts == dict.fromkeys(shards, 60)
    assert not any(counts.starts.values())
    keys = keys_of(stream_of(counts, buffer=10), 1_920)
    assert sorted(keys[:960]) == sorted(keys[960:]) == list(range(960))
    assert abs(rank_correlation(keys[:960], keys[960:])) < 0.6
    halves = [keys_of(stream_of(counts, worker, 2), 480) for worker in range(2)]
    assert sorted(halves[0] + halves[1]) == list(range(960))


@pytest.mark.parametrize("worker", [0, 2])
def test_a_worker_resumes_at_any_batch_with_what_would_have_come(worker, tmp_path):
    counts = pipeline.shard_counts(write_shards(tmp_path, [301, 7, 150]))
    whole = list(itertools.islice(stream_of(counts, worker, 3, 30), 500))
    assert [position for position, _ in whole] == list(range(500))
    for start in (1, 15, 16, 40):  # an epoch has 152 or 153 records
        resumed = stream_of(counts, worker, 3, 30, start_batch=start)
        assert list(itertools.islice(resumed, 60)) == whole[10 * start : 10 * start + 60]


def test_blocks_begin_where_records_do_and_a_lost_end_is_of_the_last(tmp_path):
    (path,) = write_shards(tmp_path, [300])
    frames = list(records.read_frames(path))
    count, starts, *_ = records.index_records(path)
    assert (count, len(starts)) == (300, 3)
    for place, start in enumerate(starts):
        assert next(records.read_frames(path, start)) == frames[framing.BLOCK * place]
    assert list(records.read_records(path, 2, starts[1], 3)) == frames[131:133]
    # The shard is cut inside record 200, but its statistics still state 300 records.
    whole = sum(len(frame) + 16 for frame in frames[:200])
    with open(path, "rb+") as file:
        file.truncate(whole + 20)
    counts = pipeline.shard_counts([path])
    assert (counts[path], len(counts.starts[path])) == (300, 2)
    epoch_records = shard_order.epoch_of(
        counts, block_reader(counts), 0, shard_order.Share(300, 0, 1)
    )
    epoch = epoch_records(tf.constant(0, tf.int64))
    found = [records.parse_pair(own).get("image_id") for own, _ in epoch.as_numpy_iterator()]
    assert len(found) == 300
    assert sorted(filter(None, found)) == sorted(str(key).encode() for key in range(200))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """460 records in blocks of up to 128, and their 200 images, of 1 to 5 records each."""
    counts = pipeline.shard_counts(write_shards(tmp_path_factory.mktemp("s"), [300, 7, 150, 3]))
    ids = np.random.default_rng(1).permutation(np.append(np.arange(1, 201), np.arange(1, 201)[:60]))
    ids = np.append(ids, np.random.default_rng(2).integers(1, 201, size=200))
    return counts, ids, image_groups.group(ids)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_an_epoch_of_images_has_one_record_of_each_over_all_workers(captioned, num_workers):
    counts, ids, groups = captioned
    epochs = collections.defaultdict(list)
    for worker in range(num_workers):
        share = shard_order.Share(groups.images, worker, num_workers)
        keys = keys_of(stream_of(counts, worker, num_workers, 20, groups=groups), 200)
        for position, key in enumerate(keys):
            epochs[share.place_of(position)[0]].append(key)
    for epoch in range(200 * num_workers // groups.images):
        chosen = groups.is_chosen(tf.constant(epoch, tf.int64), 3).numpy()
        assert sorted(epochs[epoch]) == np.flatnonzero(chosen).tolist()
        assert sorted(ids[epochs[epoch]]) == list(range(1, 201))


@pytest.mark.parametrize("worker", [0, 2])
def test_an_epoch_of_images_resumes_at_any_batch(captioned, worker):
    counts, _, groups = captioned
    whole = keys_of(stream_of(counts, worker, 3, 20, groups=groups), 300)
    for start in (1, 7, 15, 23):
        rest = stream_of(counts, worker, 3, 20, start_batch=start, groups=groups)
        assert keys_of(rest, 300 - 10 * start) == whole[10 * start :]
