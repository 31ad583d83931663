"""Groups records by image, and chooses one record (one caption) of each image for an epoch.

A record holds one caption, so an image with five captions is five records with the same
``image_id``. Five epochs use each of the five once, in order, starting with a random one; the next
five epochs start with another random one. The choice depends only on the seed, the epoch and the
image, so all readers make the same choice.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
import tensorflow as tf

from align_keras import progress
from align_keras.data import records
from align_keras.data.pairs import image_id_of


@dataclasses.dataclass(frozen=True)
class ImageGroups:
    """The records of each image. Records are numbered in the order of the shards' paths."""

    records: np.ndarray
    """The numbers of all records, grouped by image, int64."""
    starts: np.ndarray
    """Where the records of each image begin in ``records``, int64, ``(images,)``."""
    sizes: np.ndarray
    """The number of records of each image, int64, ``(images,)``."""

    @property
    def images(self) -> int:
        """The number of images, which is also the number of pairs in an epoch."""
        return len(self.starts)

    def as_tensors(self) -> Self:
        """The same with tensors, which a traced function refers to instead of copying them."""
        with tf.device("CPU"):
            return type(self)(*map(tf.constant, (self.records, self.starts, self.sizes)))

    def chosen(self, images: tf.Tensor, epochs: tf.Tensor, seed: int) -> tf.Tensor:
        """The record of each image that an epoch uses.

        Args:
            images: numbers of images, int64.
            epochs: one epoch for all images, or an epoch for each image, int64.
            seed: decides the choice.

        Returns:
            Numbers of records, int64, in the shape of ``images``.
        """
        sizes = tf.gather(self.sizes, images)
        first = _random(images, epochs // sizes, seed) % sizes
        places = tf.gather(self.starts, images) + (first + epochs) % sizes
        return tf.gather(self.records, places)

    def is_chosen(self, epoch: tf.Tensor, seed: int) -> tf.Tensor:
        """For each record, whether an epoch uses it: bool, ``(records,)``."""
        images = tf.range(self.images, dtype=tf.int64)
        chosen = self.chosen(images, epoch, seed)
        return tf.scatter_nd(chosen[:, None], tf.ones_like(chosen, tf.bool), [len(self.records)])


def group(image_ids: np.ndarray) -> ImageGroups:
    """Groups records by their image.

    Args:
        image_ids: the number of each record's image, int64; 0 for a record without an image id,
            which counts as a separate image.
    """
    own = image_ids == 0
    # Numbers below 0 are free, since `read_image_ids` never returns them.
    ids = np.where(own, -1 - np.arange(len(image_ids)), image_ids)
    order = np.argsort(ids, kind="stable")
    _, starts, sizes = np.unique(ids[order], return_index=True, return_counts=True)
    return ImageGroups(*(array.astype(np.int64) for array in (order, starts, sizes)))


def read_groups(counts: Mapping[str, int]) -> ImageGroups:
    """Reads the ``image_id`` of every record of shards.

    Args:
        counts: the number of records of each shard, by path.
    """
    shards = progress.watch(sorted(counts), "reading image ids", "shard", len(counts))
    ids = [read_image_ids(records.read_records(shard, counts[shard])) for shard in shards]
    return group(np.concatenate(ids))


def read_image_ids(frames: Iterable[bytes]) -> np.ndarray:
    """The number of each serialised record's image, int64, above 0; 0 without an ``image_id``."""
    return np.array([number_of(image_id_of(frame)) for frame in frames], np.int64)


def number_of(image_id: bytes) -> int:
    """A number above 0 that stands for an image id; 0 for none."""
    if not image_id:
        return 0
    digest = hashlib.blake2b(image_id, digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 2) + 1


def _random(images: tf.Tensor, rounds: tf.Tensor, seed: int) -> tf.Tensor:
    """A random number for each image in each round, int64, from 0 to 2 ** 32 - 1."""
    mixed = _mix(tf.cast(tf.constant(seed, tf.int64), tf.uint32))
    mixed = _mix(tf.bitwise.bitwise_xor(mixed, tf.cast(rounds, tf.uint32)))
    mixed = _mix(tf.bitwise.bitwise_xor(mixed, tf.cast(images, tf.uint32)))
    return tf.cast(mixed, tf.int64)


def _mix(bits: tf.Tensor) -> tf.Tensor:
    """Hashes 32 bits (Chris Wellons's lowbias32), uint32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _uint32(shift)))
        bits *= _uint32(factor)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _uint32(16)))


def _uint32(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint32)
