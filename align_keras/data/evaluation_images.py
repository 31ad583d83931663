"""Batches of the images of some records, without their captions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from align_keras.data import batches, shard_order
from align_keras.data.block_reader import block_reader
from align_keras.data.pairs import Pair
from align_keras.data.pipeline import read_pairs
from align_keras.preprocessing.fields import PIXELS
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.tracing import as_written


def evaluation_images(
    counts: Mapping[str, int],
    preprocessor: AlignPreprocessor,
    batch_size: int,
    rows: Sequence[int] | np.ndarray,
) -> tf.data.Dataset:
    """The images of some records, centre-cropped, in the shards' order.

    Args:
        counts: the number of records of each shard, by path.
        preprocessor: crops the images.
        batch_size: images per batch.
        rows: the numbers of the records; records are numbered in the order of the shards' paths.

    Returns:
        A ``tf.data.Dataset`` of dicts: ``pixels`` as in ``training_dataset``; ``positions``, the
        number of each record, int64; and ``valid``, False for an image that cannot be read and for
        the padding of the last batch.
    """
    is_wanted = np.zeros(sum(counts.values()), bool)
    is_wanted[rows] = True
    num_batches = math.ceil(is_wanted.sum() / batch_size)
    padding = num_batches * batch_size - is_wanted.sum()
    blocks = tf.data.Dataset.from_tensor_slices(shard_order.every_block(counts))
    records = blocks.flat_map(block_reader(counts)).enumerate()
    marked = tf.data.Dataset.zip(records, tf.data.Dataset.from_tensor_slices(is_wanted))
    wanted = marked.filter(lambda _, is_own: is_own).map(lambda record, _: record)
    nothing = tf.constant(-1, tf.int64), ("", tf.constant(0, tf.int64))
    wanted = wanted.concatenate(tf.data.Dataset.from_tensors(nothing).repeat(padding))
    no_image = tf.zeros([preprocessor.image_size, preprocessor.image_size, 3], tf.uint8)

    def decode(position: tf.Tensor, pair: Pair) -> dict[str, tf.Tensor]:
        valid = pair.image != ""
        return {
            "positions": position,
            PIXELS: tf.cond(
                valid, lambda: preprocessor.decode_centre_crop(pair.image), lambda: no_image
            ),
            "valid": valid,
        }

    @as_written
    def finish(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch.pop("lost")
        return batch

    blank = {"positions": nothing[0], PIXELS: no_image, "valid": False}
    dataset = batches.decoded(wanted, decode, blank, batch_size, read_pairs).map(finish)
    # Keras warns at the end of data whose length it does not know.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return batches.with_options(dataset)
