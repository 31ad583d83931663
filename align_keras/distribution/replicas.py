"""Values that cross replicas: gathered, summed, and a replica's place among them."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

T = TypeVar("T")

#: How rows can be gathered: by TensorFlow's operation, or as a sum of zero-padded rows.
GATHERINGS = ("all_gather", "all_reduce")


def gather_replicas(value: tf.Tensor, form: str | None = None) -> tf.Tensor:
    """Concatenates every replica's rows, in the order of the replicas; exact gradients.

    Outside a replica, and if there is only one, it returns the value itself.

    Args:
        value: ``(rows, ...)``, numbers; only the rows may differ between replicas. Both forms keep
            the dtype and every value, of int64 too.
        form: one of ``GATHERINGS``; ``None`` for the one that suits the devices.

    Returns:
        ``(all rows, ...)``, the same on every replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    if (form or form_of_gathering(context.strategy)) == "all_reduce":
        return _sum_of_padded(value)
    # A tensor of the input batch may carry no device, which gathering between workers needs.
    return context.all_gather(tf.identity(value), axis=0)


def form_of_gathering(strategy: tf.distribute.Strategy) -> str:
    """``all_reduce`` if the strategy's replicas are GPUs, else ``all_gather``.

    A sum of zero-padded rows moves twice the bytes of a gather. On GPUs it is the better form
    nevertheless. There, in TensorFlow 2.20 and 2.21, ``ReplicaContext.all_gather``

    - cannot be traced in an XLA function of a replica. It always calls ``merge_call``, which
      strategies forgo there (``_use_merge_call``); ``all_reduce`` does without.
    - gathers on one device and broadcasts under ``NcclAllReduce`` and
      ``HierarchicalCopyAllReduce`` (``AllReduceCrossDeviceOps._gather_implementation``), and
      always for int32 (``MirroredExtended._get_cross_device_ops``). The default,
      ``CollectiveAllReduce``, gathers by NCCL.
    - exchanges more than rows: their number first, and again for the gradient, as int32. Slices
      of unknown size follow, for which a GPU waits for the host.

    On the CPUs of one machine ``all_gather`` is a ring, but a sum goes through one device
    (``MirroredExtended._reduce_to``). On TPUs ``all_gather`` itself sums zero-padded rows, and has
    another way for int64, which TPUs do not sum (``_TPUReplicaContext.all_gather``).
    """
    try:
        devices = strategy.extended.worker_devices
    except RuntimeError:
        # TensorFlow's default strategy, of which a trace may make several replicas.
        return "all_gather"
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in devices}
    return "all_reduce" if kinds == {"GPU"} else "all_gather"


def _sum_of_padded(value):
    """``gather_replicas`` as a sum: each replica's rows are padded with zeros."""
    first, total = place_of_rows(value)
    # Not `tf.pad`: it has no kernel for int64 on GPUs. Not a product with a mask: it would carry
    # one replica's NaN into everybody's rows.
    before, after = (
        tf.zeros([count, *value.shape[1:]], value.dtype)
        for count in (first, total - first - tf.shape(value)[0])
    )
    (gathered,) = sum_replicas([tf.concat([before, value, after], axis=0)])
    return tf.ensure_shape(gathered, [total if isinstance(total, int) else None, *value.shape[1:]])


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
