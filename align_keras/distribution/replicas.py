"""Values that cross replicas: gathered, summed, and a replica's place among them."""

from typing import Any

import tensorflow as tf


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


def replica_place() -> tuple[int | tf.Tensor, int]:
    """This replica's index, an integer or int32 tensor, and the number of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync
