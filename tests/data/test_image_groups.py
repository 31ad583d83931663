"""One caption of each image per epoch."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from align_keras.data import image_groups, records


def choices(groups, epochs, seed=0):
    images = tf.range(groups.images, dtype=tf.int64)
    return [groups.chosen(images, tf.constant(n, tf.int64), seed).numpy() for n in range(epochs)]


@pytest.fixture(scope="module")
def groups():
    """Images of 1 to 5 records, shuffled, and three records without an id."""
    ids = np.repeat(np.arange(1, 1001), np.arange(1000) % 5 + 1)
    return image_groups.group(np.random.default_rng(0).permutation(np.append(ids, [0, 0, 0])))


def test_records_are_grouped_by_their_ids_and_alone_without_one():
    frames = [
        records.make_record(b"", "", "k", image_id=image_id) for image_id in ("b", "7", "b", " ")
    ]
    frames += [records.make_record(b"", "", "k", image_id=7), b"no record", b"no record"]
    groups = image_groups.group(image_groups.read_image_ids(frames))
    parts = np.split(groups.records, groups.starts[1:])
    assert sorted(part.tolist() for part in parts) == [[0, 2], [1, 4], [3], [5], [6]]
    assert groups.sizes.tolist() == [len(part) for part in parts]


def test_each_image_shows_every_caption_once_in_a_round_of_epochs(groups):
    found = np.stack(choices(groups, 10), axis=1)
    for own, start, size in zip(found, groups.starts, groups.sizes, strict=True):
        of_image = sorted(groups.records[start : start + size])
        for first in range(0, 11 - size, size):
            assert sorted(own[first : first + size]) == of_image


def test_the_first_captions_of_rounds_are_random_and_independent():
    """20,000 images with 5 captions: all counts are within 4 deviations of their expectation."""
    count, size = 20_000, 5
    groups = image_groups.group(np.repeat(np.arange(1, count + 1), size))
    base = groups.starts
    ranks = [own - base for own in choices(groups, 6) + choices(groups, 1, seed=1)]
    first, later, other_seed = ranks[0], ranks[5], ranks[6]
    one, two = count / size, count / size**2
    for own in (first, later, other_seed):
        assert np.abs(np.bincount(own) - one).max() < 4 * np.sqrt(one)
    for left, right in ((first, later), (first, other_seed), (first[1:], first[:-1])):
        table = np.histogram2d(left, right, bins=size)[0]
        assert np.abs(table - two).max() < 4 * np.sqrt(two)


def test_the_records_of_an_epoch_are_one_of_each_image_whatever_is_asked_with_them(groups):
    for epoch in range(3):
        chosen = choices(groups, epoch + 1, seed=4)[epoch]
        mask = groups.is_chosen(tf.constant(epoch, tf.int64), seed=4).numpy()
        assert np.flatnonzero(mask).tolist() == sorted(chosen)
        # Images with different epochs, as in a batch of cached features.
        images = tf.constant([5, 900, 5], tf.int64)
        epochs = tf.constant([epoch, epoch, epoch + 1], tf.int64)
        found = groups.chosen(images, epochs, 4).numpy().tolist()
        following = choices(groups, epoch + 2, seed=4)[epoch + 1]
        assert found == [chosen[5], chosen[900], following[5]]
    assert len(set(map(tuple, itertools.chain(choices(groups, 3))))) == 3
