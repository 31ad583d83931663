"""The same loss without the matrix of logits: a tile of image rows at a time (sec. 4.1).

One pass computes each tile of logits once for both directions: exact log-sums for its rows, and
running ones for all columns, which are put together over the replicas. Only those are kept; the
backward pass computes the tiles again. Memory is that of a tile and of the embeddings, and with
one matrix product instead of two a direction it is also the faster form of a large batch.
Everything is float32. A pure function; what crosses replicas is handed in.
"""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class _Problem:
    """This replica's rows against everybody's columns; ``ids`` are pairs of own and all."""

    images: tf.Tensor  # (rows, dim)
    texts: tf.Tensor  # (columns, dim)
    temperature: tf.Tensor  # ()
    first: tf.Tensor  # the column of row 0's own pair, ()
    ids: tuple
    tile_rows: int

    @property
    def tiles(self):
        return -(-self.images.shape[0] // self.tile_rows)

    def tile(self, index):
        """Logits of one tile, which of them take part, and which are own pairs.

        The last tile may begin before the one before it has ended: ``fresh`` tells which of its
        rows are new.
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
    """How many rows of so many logits are 8 MiB, but 64 at least: a good ``tile_rows``."""
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
    """Cross entropies of this replica's pairs, both directions, against those of all replicas.

    Args:
        images: unit-norm embeddings, ``(rows, dim)``; a static shape.
        texts: unit-norm embeddings, ``(rows, dim)``.
        temperature: scalar, positive.
        tile_rows: rows of the logits that are held at once.
        label_smoothing: as in ``losses.softmax_cross_entropy``.
        ids: int64 arrays ``(rows,)``; pairs that share one which is not 0 are no negatives of each
            other.
        replica: this replica's index.
        replicas: how many there are.
        gather: concatenates every replica's rows, in the order of the replicas.
        add: sums each tensor of a list over the replicas.

    Returns:
        ``(loss_i2t, loss_t2i, i2t_recall_at_1, t2i_recall_at_1)``, each float32, ``(rows,)``. The
        gradients of the losses are exact; the recalls have none.
    """
    rows = images.shape[0]
    all_ids = tuple((own, gather(own)) for own in ids)

    @tf.custom_gradient
    def losses(images, texts, temperature):
        # CPUs do not know how many rows they gather.
        all_texts = tf.ensure_shape(gather(texts), [replicas * rows, texts.shape[1]])
        problem = _Problem(
            images, all_texts, temperature, replica * rows, all_ids, min(tile_rows, rows)
        )
        row, column, recalls = _forward(problem, label_smoothing, gather, add)
        own_logit = tf.reduce_sum(images * texts, axis=1) / temperature

        def gradient(d_i2t, d_t2i, *_):
            # Each replica's own rows, and for the columns everybody's weights.
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
    """Log-sums, means and counts of rows and of columns, and whether each own pair is best."""
    rows, columns = problem.images.shape[0], problem.texts.shape[0]
    # The columns' own logits, to count in each what is as good.
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
    """What is kept of each row of a tile, exact: a tile has whole rows."""
    own_logit = tf.reduce_sum(tf.where(own, logits, 0.0), axis=1)
    count = tf.reduce_sum(tf.cast(part, tf.float32), axis=1)
    return {
        "log_sum": tf.reduce_logsumexp(tf.where(part, logits, tf.float32.min), axis=1),
        "count": count,
        "mean": tf.reduce_sum(tf.where(part, logits, 0.0), axis=1) / count,
        # Not `>=`: NaN must be a rival too.
        "rivals": _count(rivals & ~(logits < own_logit[:, None]), axis=1),
    }


def _add_to_columns(column, logits, part, rivals):
    """What is kept of each column, with a further tile; ``sum`` is of powers below ``top``."""
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
    # Replicas cannot take a maximum together, and to gather everybody's would cost more than all
    # else. A sum of powers lies above it by at most log(replicas) / 40 of the largest logit there
    # can be: as good a shift, which exponentials neither overflow nor vanish under.
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
    """``values[start : start + count]``, of a size that XLA knows."""
    return tf.gather(values, start + tf.range(count))


def _count(mask, axis):
    return tf.reduce_sum(tf.cast(mask, tf.float32), axis=axis)


def _backward(problem, label_smoothing, row, column, d_rows, d_columns):
    """Gradients of this replica's images, of all texts and of the temperature, its part."""

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
