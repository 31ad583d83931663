"""Batches of pairs with precomputed features."""

import numpy as np
import pytest

from align_keras.data import image_groups
from align_keras.data.cached_pairs import CachedPairs

RECORDS, VIEWS = 23, 3


@pytest.fixture(scope="module")
def pairs():
    """Pairs in which every value shows its record or image; two records are unreadable."""
    images = np.arange(RECORDS) // 2
    features = 100.0 * np.arange(12)[:, None] + np.arange(VIEWS)
    valid = ~np.isin(np.arange(RECORDS), [4, 11])
    return CachedPairs(
        image_features=features[..., None].astype("float32"),
        images=np.where(valid, images, 0),
        valid=valid,
        image_ids=images,
        caption_ids=1000 + np.arange(RECORDS),
        texts={"token_ids": np.arange(RECORDS, dtype="int32")[:, None]},
        shards=np.where(np.arange(RECORDS) < 10, 1, 2).astype("int32"),
    )


def taken(pairs, count, **options):
    dataset = pairs.batches(5, **options).take(count)
    return list(dataset.as_numpy_iterator())


def joined(batches, name):
    return np.concatenate([batch[name] for batch in batches])


def test_each_epoch_has_every_readable_record_once_in_another_order(pairs):
    batches = taken(pairs, 2 * RECORDS, seed=3)
    records, lost = joined(batches, "token_ids")[:, 0], joined(batches, "lost")
    orders = [records[n * RECORDS : (n + 1) * RECORDS] for n in range(10)]
    readable = np.flatnonzero(pairs.valid)
    for number, order in enumerate(orders):
        marks = lost[number * RECORDS : (number + 1) * RECORDS]
        np.testing.assert_array_equal(np.sort(order[marks == 0]), readable)
        assert sorted(marks[marks > 0]) == [1, 2]  # record 4 of shard 1, record 11 of shard 2
    assert len({tuple(order) for order in orders}) == 10
    # A lost record is replaced by another complete pair of the batch.
    assert set(records) == set(readable)
    np.testing.assert_array_equal(joined(batches, "image_ids"), records // 2)
    np.testing.assert_array_equal(joined(batches, "caption_ids"), 1000 + records)
    np.testing.assert_array_equal(joined(batches, "image_features")[:, 0] // 100, records // 2)


def test_every_view_of_an_image_is_taken_in_turn(pairs):
    batches = taken(pairs, 3 * RECORDS)
    views = joined(batches, "image_features")[:, 0] % 100
    records = joined(batches, "token_ids")[:, 0]
    lost = joined(batches, "lost")
    for record in np.flatnonzero(pairs.valid):
        own = views[(records == record) & (lost == 0)]
        assert (np.diff(own) % VIEWS == 1).all()


def test_a_batch_follows_from_its_number_alone_and_workers_share_the_batches(pairs):
    whole = taken(pairs, 12, seed=5)
    late = taken(pairs, 2, seed=5, start_batch=10)
    shares = [taken(pairs, 6, seed=5, worker=worker, num_workers=2) for worker in (0, 1)]
    shared = [shares[number % 2][number // 2] for number in range(12)]
    for batch, other in zip([*whole, *whole[10:]], [*shared, *late], strict=True):
        for name, values in batch.items():
            np.testing.assert_array_equal(other[name], values, name)
    assert np.any(joined(whole, "token_ids") != joined(taken(pairs, 12), "token_ids"))


def test_an_epoch_of_images_has_one_caption_of_each_and_the_next_view(pairs):
    groups = image_groups.group(1 + np.arange(RECORDS) // 2)
    count = groups.images
    batches = taken(pairs, 6 * count, seed=3, groups=groups)
    records, lost = joined(batches, "token_ids")[:, 0], joined(batches, "lost")
    views = joined(batches, "image_features")[:, 0] % 100
    for epoch in range(0, 30, 2):
        first, second = (slice(n * count, (n + 1) * count) for n in (epoch, epoch + 1))
        one, other = (records[own][lost[own] == 0] for own in (first, second))
        # Two epochs use both captions of every image, except the two unreadable ones.
        assert sorted([*one, *other]) == sorted([*np.flatnonzero(pairs.valid), 22])
        assert len({*(one // 2)}) == len(one)
    view = views[lost == 0]
    image = records[lost == 0] // 2
    for number in (0, 3, 7):
        assert (np.diff(view[image == number]) % VIEWS == 1).all()
    late = taken(pairs, 3, seed=3, groups=groups, start_batch=9)
    for batch, expected in zip(late, batches[9:], strict=False):
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name])
