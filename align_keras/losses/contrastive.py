"""The normalized softmax loss over the global batch: pure functions on arrays (sec. 4.1).

Rows are the pairs of this replica, and columns are the pairs of the entire batch. On one device
they are the same. All computations are in float32.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf


def pair_logits(queries: tf.Tensor, keys: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """Scores of every query against every key: similarity / temperature.

    Args:
        queries: unit-norm embeddings, ``(rows, dim)``.
        keys: unit-norm embeddings, ``(columns, dim)``.
        temperature: scalar, positive.

    Returns:
        float32, ``(rows, columns)``.
    """
    queries = tf.cast(queries, tf.float32)
    keys = tf.cast(keys, tf.float32)
    return tf.matmul(queries, keys, transpose_b=True) / temperature


def false_negatives(row_ids: tf.Tensor, column_ids: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
    """Finds pairs that share an id and are therefore not true negatives of each other.

    Args:
        row_ids: int64, ``(rows,)``; 0 for a record without an id.
        column_ids: int64, ``(columns,)``; 0 for a record without an id.
        positives: int, ``(rows,)``: the column of each row's own pair, which is never marked.

    Returns:
        bool, ``(rows, columns)``: True for a false negative.
    """
    same = (row_ids[:, None] == column_ids[None, :]) & (row_ids[:, None] != 0)
    own = positives[:, None] == tf.range(tf.shape(column_ids)[0], dtype=positives.dtype)[None, :]
    return same & ~own


def softmax_cross_entropy(
    logits: tf.Tensor,
    positives: tf.Tensor,
    label_smoothing: float = 0.0,
    excluded: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross entropy of each row, with its own pair as the target.

    Let ``s`` be the smoothing and ``K`` the number of columns that are not excluded in a row. The
    target is ``1 - s + s / K`` for the row's own pair and ``s / K`` for the other columns.

    Args:
        logits: float32, ``(rows, columns)``.
        positives: int, ``(rows,)``: the column of each row's own pair.
        label_smoothing: ``s``, 0 to 1; 0.1 in the paper.
        excluded: bool, ``(rows, columns)``: columns that a row ignores, both in the softmax and in
            the smoothing. ``None`` for the paper's loss.

    Returns:
        float32, ``(rows,)``.
    """
    if excluded is None:
        mean_logit = tf.reduce_mean(logits, axis=1)
    else:
        count = tf.reduce_sum(tf.cast(~excluded, tf.float32), axis=1)
        mean_logit = tf.reduce_sum(tf.where(excluded, 0.0, logits), axis=1) / count
        logits = tf.where(excluded, logits.dtype.min, logits)
    own_logit = tf.gather(logits, positives, axis=1, batch_dims=1)
    log_normalizer = tf.reduce_logsumexp(logits, axis=1)
    return log_normalizer - (1.0 - label_smoothing) * own_logit - label_smoothing * mean_logit


def recall_at_1(
    logits: tf.Tensor, positives: tf.Tensor, excluded: tf.Tensor | None = None
) -> tf.Tensor:
    """1.0 for each row that scores its own pair above all others, else 0.0: ``(rows,)``."""
    own_logit = tf.gather(logits, positives, axis=1, batch_dims=1)
    # Not `>=`: NaN must not count as a hit.
    better = ~(logits < own_logit[:, None])
    if excluded is not None:
        better &= ~excluded
    # A row's own pair always counts once; a tie with another pair is not a hit.
    return tf.cast(tf.math.count_nonzero(better, axis=1) == 1, tf.float32)


def dense_losses(
    images: tf.Tensor,
    texts: tf.Tensor,
    temperature: tf.Tensor,
    *,
    label_smoothing: float = 0.0,
    ids: Sequence[tf.Tensor] = (),
    first: int | tf.Tensor = 0,
    gather: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cross entropies of this replica's pairs against all replicas' pairs, in both directions.

    Args:
        images: unit-norm embeddings, ``(rows, dim)``.
        texts: unit-norm embeddings, ``(rows, dim)``.
        temperature: scalar, positive.
        label_smoothing: as in ``softmax_cross_entropy``.
        ids: int64 arrays ``(rows,)``. Pairs that share a nonzero id are not negatives of each
            other.
        first: the column of this replica's first pair among the pairs of all replicas.
        gather: concatenates the rows of all replicas, in the order of the replicas.

    Returns:
        ``(loss_i2t, loss_t2i, i2t_recall_at_1, t2i_recall_at_1)``, each float32, ``(rows,)``.
    """
    rows = tf.shape(images)[0]
    positives = first + tf.range(rows)
    excluded = None
    for own_ids in ids:
        shared = false_negatives(own_ids, gather(own_ids), positives)
        excluded = shared if excluded is None else excluded | shared
    values, recalls = [], []
    for queries, keys in ((images, texts), (texts, images)):
        logits = pair_logits(queries, gather(keys), temperature)
        values.append(softmax_cross_entropy(logits, positives, label_smoothing, excluded))
        recalls.append(recall_at_1(logits, positives, excluded))
    return (*values, *recalls)
