"""Values that cross replicas: gathered, summed, and a replica's place among them."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

T = TypeVar("T")


def gather_replicas(value: tf.Tensor) -> tf.Tensor:
    """Concatenates every replica's rows, in the order of the replicas; exact gradients.

    Outside a replica, and if there is only one, it returns the value itself.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    # A tensor of the input batch may carry no device, which gathering between workers needs.
    return context.all_gather(tf.identity(value), axis=0)


def sum_replicas(values: list[Any]) -> list[Any]:
    """Sums each tensor of a list over the replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def mean_of_replicas(values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The mean of each float32 scalar over the replicas, on every replica: one exchange for all."""
    _, replicas = replica_place()
    (total,) = sum_replicas([tf.stack(list(values.values()))])
    return dict(zip(values, tf.unstack(total / replicas), strict=True))


def place_of_rows(value: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Where a replica's rows stand among those of all replicas, and how many there are in all.

    Shares of a static size are equal; others, such as of a smaller last batch, are counted.
    """
    replica, replicas = replica_place()
    if value.shape[0] is not None or replicas == 1:
        rows = tf.shape(value)[0] if value.shape[0] is None else value.shape[0]
        return replica * rows, replicas * rows
    own = tf.cast(tf.shape(value)[0], tf.float32)
    (counts,) = sum_replicas([tf.one_hot(replica, replicas, on_value=own)])
    counts = tf.cast(counts, tf.int32)
    return tf.reduce_sum(counts[:replica]), tf.reduce_sum(counts)


def on_a_share(function: Callable[[T], Any], share: T) -> Any:
    """Calls a function on this replica's share of a batch, which may be empty.

    A last batch smaller than the number of replicas leaves some without a row. TensorFlow's fused
    kernels fail there, or give no rows of a wrong width: the function then sees one row of zeros.

    Args:
        function: takes and gives nested tensors, ``(rows, ...)``.
        share: its argument.
    """
    rows = tf.nest.flatten(share)[0].shape[0]
    if rows is not None or replica_place()[1] == 1:
        return function(share)
    count = tf.shape(tf.nest.flatten(share)[0])[0]
    missing = tf.maximum(1 - count, 0)

    def fill(value: tf.Tensor) -> tf.Tensor:
        return tf.pad(value, [[0, missing], *[[0, 0]] * (value.shape.rank - 1)])

    outputs = function(tf.nest.map_structure(fill, share))
    return tf.nest.map_structure(lambda value: value[:count], outputs)


def replica_place() -> tuple[int | tf.Tensor, int]:
    """This replica's index, an integer or int32 tensor, and the number of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync
