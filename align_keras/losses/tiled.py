"""The same loss without the full matrix of logits: one tile of image rows at a time (sec. 4.1).

One pass computes each tile of logits once for both directions. It gives exact log-sums for the rows
of the tile and running log-sums for all columns, which are then combined over the replicas. Only
these are kept; the backward pass computes the tiles again. Memory is needed only for one tile and
the embeddings. For a large batch this form is also faster, since it needs one matrix product
instead of one per direction. All computations are in float32. The functions are pure: the functions
that communicate between replicas are arguments.
"""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class _Problem:
    """The rows of this replica against all columns; ``ids`` holds tuples (own ids, all ids)."""

    images: tf.Tensor  # (rows, dim)
    texts: tf.Tensor  # (columns, dim)
    temperature: tf.Tensor  # ()
    first: tf.Tensor  # column of row 0's own pair, ()
    ids: tuple
    tile_rows: int

    @property
    def tiles(self):
        return -(-self.images.shape[0] // self.tile_rows)

    def tile(self, index):
        """The place of a tile, its logits, and masks of rows, columns and own pairs.

        The last tile may overlap the previous one; ``fresh`` marks the rows that are new.
        """
        start = tf.minimum(index * self.tile_rows, self.images.shape[0] - self.tile_rows)
        rows = start + tf.range(self.tile_rows)
        fresh = rows >= index * self.tile_rows
        images = _slice(self.images, start, self.tile_rows)
        logits = tf.matmul(images, self.texts, transpose_b=True)
        own = (self.first + rows)[:, None] == tf.range(self.texts.shape[0])[None, :]
        part = tf.ones_like(own)
        for own_ids, all_ids in self.ids:
            tile_ids = _slice(own_ids, start, self.tile_rows)[:, None]
            part &= (tile_ids != all_ids[None, :]) | (tile_ids == 0)
        return start, fresh, logits / self.temperature, part | own, own


def rows_of_a_tile(columns: int) -> int:
    """A good ``tile_rows``: rows of ``columns`` logits that fill 8 MiB, but at least 64."""
    return max(64, (1 << 21) // columns)


def tiled_losses(
    images: tf.Tensor,
    texts: tf.Tensor,
    temperature: tf.Tensor,
    *,
    tile_rows: int,
    label_smoothing: float = 0.0,
    ids: Sequence[tf.Tensor] = (),
    replica: int | tf.Tensor = 0,
    replicas: int = 1,
    gather: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    add: Callable[[list[tf.Tensor]], list[tf.Tensor]] = list,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cross entropies of this replica's pairs against all replicas' pairs, in both directions.

    Args:
        images: unit-norm embeddings, ``(rows, dim)``, of static shape.
        texts: unit-norm embeddings, ``(rows, dim)``.
        temperature: scalar, positive.
        tile_rows: number of rows of the logits to hold at once.
        label_smoothing: as in ``losses.softmax_cross_entropy``.
        ids: int64 arrays ``(rows,)``. Pairs that share a nonzero id are not negatives of each
            other.
        replica: this replica's index.
        replicas: number of replicas.
        gather: concatenates the rows of all replicas, in the order of the replicas.
        add: sums each tensor of a list over the replicas.

    Returns:
        ``(loss_i2t, loss_t2i, i2t_recall_at_1, t2i_recall_at_1)``, each float32, ``(rows,)``. The
        gradients of the losses are exact; the recalls have no gradient.
    """
    rows = images.shape[0]
    all_ids = tuple((own, gather(own)) for own in ids)

    @tf.custom_gradient
    def losses(images, texts, temperature):
        # On CPUs, the number of gathered rows is not static.
        all_texts = tf.ensure_shape(gather(texts), [replicas * rows, texts.shape[1]])
        problem = _Problem(
            images, all_texts, temperature, replica * rows, all_ids, min(tile_rows, rows)
        )
        row, column, recalls = _forward(problem, label_smoothing, gather, add)
        own_logit = tf.reduce_sum(images * texts, axis=1) / temperature

        def gradient(d_i2t, d_t2i, *_):
            # Needs only this replica's rows, but the weights of all columns.
            d_images, d_texts, d_temperature = _backward(
                problem, label_smoothing, row, column, d_i2t, gather(d_t2i)
            )
            (d_texts,) = add([d_texts])
            return d_images, _slice(d_texts, problem.first, rows), d_temperature

        values = [
            log_sum - (1.0 - label_smoothing) * own_logit - label_smoothing * mean
            for log_sum, mean in (
                (row["log_sum"], row["mean"]),
                [_slice(column[name], problem.first, rows) for name in ("log_sum", "mean")],
            )
        ]
        return (*values, recalls[0], _slice(recalls[1], problem.first, rows)), gradient

    return losses(
        tf.cast(images, tf.float32), tf.cast(texts, tf.float32), tf.cast(temperature, tf.float32)
    )


def _forward(problem, label_smoothing, gather, add):
    """Log-sums, means and counts of rows and columns, and whether each own pair is the best."""
    rows, columns = problem.images.shape[0], problem.texts.shape[0]
    # The logits of the columns' own pairs, to count the rivals in each column.
    own_texts = _slice(problem.texts, problem.first, rows)
    own_logits = gather(tf.reduce_sum(problem.images * own_texts, 1) / problem.temperature)

    def step(index, row, column):
        start, fresh, logits, part, own = problem.tile(index)
        rivals = part & ~own
        places = (start + tf.range(problem.tile_rows))[:, None]
        values = _row_values(logits, part, own, rivals)
        row = {name: tf.tensor_scatter_nd_update(row[name], places, values[name]) for name in row}
        part, rivals = part & fresh[:, None], rivals & fresh[:, None]
        rivals &= ~(logits < own_logits)
        return index + 1, row, _add_to_columns(column, logits, part, rivals)

    row = {name: tf.zeros([rows]) for name in ("log_sum", "count", "mean", "rivals")}
    column = {name: tf.zeros([columns]) for name in ("top", "sum", "count", "mean", "rivals")}
    column["top"] += tf.float32.min
    _, row, column = tf.while_loop(
        lambda index, *_: index < problem.tiles, step, (0, row, column), parallel_iterations=1
    )
    column, column_rivals = _sum_columns(column, problem.temperature, add)
    recalls = [tf.cast(value == 0.0, tf.float32) for value in (row["rivals"], column_rivals)]
    return row, column, recalls


def _row_values(logits, part, own, rivals):
    """The values kept for each row of a tile; they are exact, since a tile holds complete rows."""
    own_logit = tf.reduce_sum(tf.where(own, logits, 0.0), axis=1)
    count = tf.reduce_sum(tf.cast(part, tf.float32), axis=1)
    return {
        "log_sum": tf.reduce_logsumexp(tf.where(part, logits, tf.float32.min), axis=1),
        "count": count,
        "mean": tf.reduce_sum(tf.where(part, logits, 0.0), axis=1) / count,
        # Not `>=`: NaN must count as a rival.
        "rivals": _count(rivals & ~(logits < own_logit[:, None]), axis=1),
    }


def _add_to_columns(column, logits, part, rivals):
    """The values kept for each column, updated by a tile; ``sum`` is relative to ``exp(top)``."""
    kept = tf.where(part, logits, tf.float32.min)
    top = tf.maximum(column["top"], tf.reduce_max(kept, axis=0))
    tile_sum = tf.reduce_sum(tf.where(part, tf.exp(logits - top), 0.0), axis=0)
    return {
        "top": top,
        "sum": column["sum"] * tf.exp(column["top"] - top) + tile_sum,
        "count": column["count"] + _count(part, axis=0),
        "mean": column["mean"] + tf.reduce_sum(tf.where(part, logits, 0.0), axis=0),
        "rivals": column["rivals"] + _count(rivals, axis=0),
    }


def _sum_columns(column, temperature, add):
    """Log-sums, means and counts of columns over all replicas, and their rivals."""
    # The exact shift would be the maximum over replicas, but ``tf.distribute`` has no maximum, and
    # gathering all values would cost more than everything else. The log of a sum of exponentials is
    # used instead. It exceeds the maximum by at most log(replicas) / 40 times the largest possible
    # logit, so exponentials neither overflow nor vanish.
    scale = 1.0 / (40.0 * temperature)
    (powers,) = add([tf.exp(column["top"] / scale)])
    top = scale * tf.math.log(powers)
    total, count, mean, rivals = add(
        [
            column["sum"] * tf.exp(column["top"] - top),
            column["count"],
            column["mean"],
            column["rivals"],
        ]
    )
    return {"log_sum": top + tf.math.log(total), "count": count, "mean": mean / count}, rivals


def _slice(values, start, count):
    """``values[start : start + count]``, with a size that XLA knows."""
    return tf.gather(values, start + tf.range(count))


def _count(mask, axis):
    return tf.reduce_sum(tf.cast(mask, tf.float32), axis=axis)


def _backward(problem, label_smoothing, row, column, d_rows, d_columns):
    """This replica's part of the gradients: of its images, of all texts and of the temperature."""

    def step(index, d_images, d_texts, d_temperature):
        start, fresh, logits, part, own = problem.tile(index)
        log_sum, count, weight, images = (
            _slice(values, start, problem.tile_rows)
            for values in (row["log_sum"], row["count"], d_rows, problem.images)
        )
        own = tf.cast(own, tf.float32) * (1.0 - label_smoothing)
        smooth = tf.cast(part, tf.float32) * label_smoothing

        def softmax_less_target(log_sum, count):
            return tf.where(part, tf.exp(logits - log_sum), 0.0) - own - smooth / count

        by_row = softmax_less_target(log_sum[:, None], count[:, None])
        by_column = softmax_less_target(column["log_sum"], column["count"])
        d_logits = weight[:, None] * by_row + d_columns * by_column
        d_logits = tf.where(fresh[:, None], d_logits, 0.0)
        d_temperature -= tf.reduce_sum(d_logits * logits)
        places = (start + tf.range(problem.tile_rows))[:, None]
        d_images = tf.tensor_scatter_nd_add(d_images, places, tf.matmul(d_logits, problem.texts))
        d_texts += tf.matmul(d_logits, images, transpose_a=True)
        return index + 1, d_images, d_texts, d_temperature

    _, d_images, d_texts, d_temperature = tf.while_loop(
        lambda index, *_: index < problem.tiles,
        step,
        (0, tf.zeros_like(problem.images), tf.zeros_like(problem.texts), 0.0),
        parallel_iterations=1,
    )
    temperature = problem.temperature
    return d_images / temperature, d_texts / temperature, d_temperature / temperature
