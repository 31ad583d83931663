"""Communication between replicas: gathering, summing, and a replica's index."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

T = TypeVar("T")

#: Ways to gather rows: TensorFlow's own operation, or a sum of zero-padded rows.
GATHERINGS = ("all_gather", "all_reduce")


def gather_replicas(value: tf.Tensor, form: str | None = None) -> tf.Tensor:
    """Concatenates the rows of all replicas, in the order of the replicas, with exact gradients.

    Outside a replica, or if there is only one, it returns the value itself.

    Args:
        value: numbers, ``(rows, ...)``; replicas may differ only in the number of rows. Both forms
            keep the dtype and every value exactly, including int64.
        form: one of ``GATHERINGS``; ``None`` chooses the one that suits the devices.

    Returns:
        ``(all rows, ...)``, the same on every replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    if (form or form_of_gathering(context.strategy)) == "all_reduce":
        return _sum_of_padded(value)
    # A tensor of the input batch may have no device, but gathering between workers needs one.
    return context.all_gather(tf.identity(value), axis=0)


def form_of_gathering(strategy: tf.distribute.Strategy) -> str:
    """``all_reduce`` if the strategy's replicas are GPUs, else ``all_gather``.

    A sum of zero-padded rows transfers twice as many bytes as a gather. On GPUs it is still the
    better form, since there, in TensorFlow 2.20 and 2.21, ``ReplicaContext.all_gather``

    - cannot be traced in an XLA function of a replica. It always calls ``merge_call``, which
      strategies do not support there (``_use_merge_call``); ``all_reduce`` does not need it.
    - gathers on one device and then broadcasts, under ``NcclAllReduce`` and
      ``HierarchicalCopyAllReduce`` (``AllReduceCrossDeviceOps._gather_implementation``), and always
      for int32 (``MirroredExtended._get_cross_device_ops``). The default, ``CollectiveAllReduce``,
      gathers by NCCL.
    - exchanges more than the rows: first their number, and for the gradient the number again, as
      int32. The following slices have unknown sizes, for which a GPU waits for the host.

    On the CPUs of one machine, ``all_gather`` is a ring, but a sum goes through one device
    (``MirroredExtended._reduce_to``). On TPUs, ``all_gather`` itself sums zero-padded rows. It
    treats int64, which TPUs cannot sum, in another way (``_TPUReplicaContext.all_gather``).
    """
    try:
        devices = strategy.extended.worker_devices
    except RuntimeError:
        # TensorFlow's default strategy; a trace may turn it into several replicas.
        return "all_gather"
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in devices}
    return "all_reduce" if kinds == {"GPU"} else "all_gather"


def _sum_of_padded(value):
    """``gather_replicas`` as a sum: the rows of each replica are padded with zeros."""
    first, total = place_of_rows(value)
    # Not `tf.pad`, which has no kernel for int64 on GPUs. Not a product with a mask, which would
    # spread a NaN of one replica to the rows of all others.
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
    """The mean of each float32 scalar over the replicas, on every replica, with one exchange."""
    _, replicas = replica_place()
    (total,) = sum_replicas([tf.stack(list(values.values()))])
    return dict(zip(values, tf.unstack(total / replicas), strict=True))


def place_of_rows(value: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """The index of a replica's first row among those of all replicas, and the total of rows.

    Shares of static size are equal. Other shares, such as those of a smaller last batch, are
    counted.
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

    If the last batch has fewer rows than there are replicas, some replicas get none. TensorFlow's
    fused kernels fail on no rows, or return a wrong width. The function then gets one row of zeros.

    Args:
        function: takes and returns nested tensors, ``(rows, ...)``.
        share: argument of the function.
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
    """This replica's index, an int or int32 tensor, and the number of replicas."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync
