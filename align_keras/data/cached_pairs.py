"""Training batches of pairs with precomputed features of images, or of captions too."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from align_keras.data import batches
from align_keras.data.image_groups import ImageGroups
from align_keras.preprocessing.fields import IMAGE_FEATURES
from align_keras.preprocessing.tracing import as_written


@dataclasses.dataclass(frozen=True)
class CachedPairs:
    """The pairs of all shards, in memory. Row i is record i, except in ``image_features``."""

    image_features: np.ndarray
    """The features of each image in each of its views, float32, ``(images, views, width)``."""
    images: np.ndarray
    """The row of each record's image, int64."""
    valid: np.ndarray
    """Whether a record is readable."""
    image_ids: np.ndarray
    caption_ids: np.ndarray
    texts: Mapping[str, np.ndarray]
    """The text tower's inputs by name, int32, ``(records, sequence)``, or ``text_features``."""
    shards: np.ndarray
    """The number of each record's shard, from 1, in the order of the paths, int32."""

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        start_batch: int = 0,
        worker: int = 0,
        num_workers: int = 1,
        groups: ImageGroups | None = None,
    ) -> tf.data.Dataset:
        """Endless batches like those of ``training_dataset``, with features instead of ``pixels``.

        Every epoch has each record once, or one record of each image, in a new order. Batch N
        depends only on N. If images have several views, each epoch uses the next view.

        Args:
            batch_size: pairs per batch.
            seed: decides the order.
            start_batch: number of the first batch.
            worker: number of this reader, from 0.
            num_workers: number of readers that share the batches.
            groups: the records of each image, if an epoch uses one of them; None for all records.

        Returns:
            A ``tf.data.Dataset`` of dicts: ``image_features`` float32 ``(batch, width)``, the
            fields of ``texts``, ``image_ids``, ``caption_ids`` and ``lost``.
        """
        count, views = len(self.images), self.image_features.shape[1]
        if groups is not None:
            count, groups = groups.images, groups.as_tensors()
        features = tf.constant(self.image_features)
        fields = {"image_ids": self.image_ids, "caption_ids": self.caption_ids, **self.texts}
        by_record = {name: tf.constant(values) for name, values in fields.items()}
        images, valid, shards = map(tf.constant, (self.images, self.valid, self.shards))

        @as_written
        def batch_of(number: tf.Tensor) -> dict[str, tf.Tensor]:
            first = (number * num_workers + worker) * batch_size
            position = first + tf.range(batch_size, dtype=tf.int64)
            epoch = position // count
            seeds = tf.stack([tf.fill([batch_size], tf.constant(seed, tf.int64)), epoch], axis=1)
            seeds = tf.pad(seeds, [[0, 0], [0, 1]])
            # The wrapper, `index_shuffle`, takes a single seed, but a batch may span two epochs.
            numbers = tf.raw_ops.RandomIndexShuffle(
                index=position % count,
                seed=tf.cast(seeds, tf.uint32),
                max_index=tf.constant(count - 1, tf.int64),
            )
            view = (epoch + numbers) % views
            rows = numbers if groups is None else groups.chosen(numbers, epoch, seed)
            is_valid = tf.gather(valid, rows)
            places = tf.stack([tf.gather(images, rows), view], axis=1)
            marks = tf.gather(shards, rows)
            batch = {
                IMAGE_FEATURES: tf.gather_nd(features, places),
                **{name: tf.gather(values, rows) for name, values in by_record.items()},
                "valid": is_valid,
                "lost": tf.where(is_valid, tf.zeros_like(marks), marks),
            }
            return batches.fill_gaps(
                {n: tf.ensure_shape(v, [batch_size, *v.shape[1:]]) for n, v in batch.items()}
            )

        numbers = tf.data.Dataset.range(start_batch, 1 << 40)
        return batches.with_options(numbers.map(batch_of, num_parallel_calls=tf.data.AUTOTUNE))
