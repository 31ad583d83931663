"""Losses of a replica's pairs against the global batch: gathers embeddings, then dense or tiled."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from align_keras import distribution
from align_keras.losses.contrastive import dense_losses
from align_keras.losses.tiled import rows_of_a_tile, tiled_losses

#: Fields of a batch that identify equal images and equal captions, int64, ``(rows,)``.
ID_FIELDS = ("image_ids", "caption_ids")
#: The loss is tiled if a replica has more logits than this. A matrix then takes 16 MiB, and the
#: dense form holds a dozen of them.
_MAX_DENSE_LOGITS = 1 << 22


def global_losses(
    images: tf.Tensor,
    texts: tf.Tensor,
    temperature: tf.Tensor,
    ids: Sequence[tf.Tensor] = (),
    label_smoothing: float = 0.0,
    tile_rows: int | None = None,
) -> dict[str, tf.Tensor]:
    """Losses of this replica's pairs against the pairs of all replicas, in both directions.

    Args:
        images: this replica's image embeddings, float32, unit norm, ``(rows, width)``.
        texts: this replica's text embeddings, float32, unit norm, ``(rows, width)``.
        temperature: temperature of both softmaxes, a scalar.
        ids: int64 tensors ``(rows,)``. Two pairs that share a nonzero value in any of them are not
            negatives of each other.
        label_smoothing: label smoothing of both softmaxes.
        tile_rows: number of rows of the logits to hold at once; 0 for the full matrix. With
            ``None``, the full matrix is used if a replica has at most 4 million logits (its pairs
            times all pairs; 2,048 pairs on one replica) or their number is unknown; otherwise
            ``rows_of_a_tile``.

    Returns:
        A dict of float32 scalars: ``loss``, ``loss_i2t``, ``loss_t2i``, ``i2t_recall_at_1``,
        ``t2i_recall_at_1``. Their mean over the replicas is the mean over all pairs. This also
        holds if replicas have different numbers of pairs or none, as in a last batch. The losses
        are 0 if there are no pairs.

    Raises:
        ValueError: if tiles are requested but the number of pairs is not static.
    """
    replica, replicas = distribution.replica_place()
    options: dict[str, Any] = {
        "label_smoothing": label_smoothing,
        "ids": list(ids),
        "gather": distribution.gather_replicas,
    }
    if tile_rows is None:
        rows = images.shape[0] or 0  # unknown if Keras also traces for a smaller last batch
        columns = rows * replicas
        tile_rows = rows_of_a_tile(columns) if rows * columns > _MAX_DENSE_LOGITS else 0
    if tile_rows:
        if images.shape[0] is None:
            raise ValueError(
                "loss_tile_rows: all batches must have the same size; batch the dataset with "
                "drop_remainder=True"
            )
        options |= {"tile_rows": tile_rows, "replica": replica, "replicas": replicas}
        options["add"] = distribution.sum_replicas
        values = tiled_losses(images, texts, temperature, **options)
        means = [tf.reduce_mean(value) for value in values]
    else:
        first, total = distribution.place_of_rows(images)
        values = dense_losses(images, texts, temperature, first=first, **options)
        pairs = tf.cast(total, tf.float32) / replicas
        means = [tf.math.divide_no_nan(tf.reduce_sum(value), pairs) for value in values]
    names = ("loss_i2t", "loss_t2i", "i2t_recall_at_1", "t2i_recall_at_1")
    results = dict(zip(names, means, strict=True))
    return {"loss": results["loss_i2t"] + results["loss_t2i"], **results}


def repeated_share(ids: tf.Tensor) -> tf.Tensor:
    """The fraction of the global batch's rows whose id occurs in an earlier row.

    Args:
        ids: int64, ``(rows,)``, of this replica's rows; 0 never counts as a repeat.

    Returns:
        A float32 scalar, the same on every replica; 0 if there are no rows.
    """
    # Repeated ids are found by sorting, since a matrix of all rows by all rows would be large. Ids
    # are sorted as floats, which every device supports. Among 16,384 different ids, about four
    # collide.
    ordered = tf.sort(tf.cast(distribution.gather_replicas(ids), tf.float32))
    repeats = tf.logical_and(ordered[1:] == ordered[:-1], ordered[1:] != 0.0)
    count = tf.reduce_sum(tf.cast(repeats, tf.float32))
    return tf.math.divide_no_nan(count, tf.cast(tf.shape(ordered)[0], tf.float32))
