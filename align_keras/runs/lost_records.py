"""Counts lost records in the training step, so that the host need not wait for the count."""

import collections
from collections.abc import Mapping, Sequence

import tensorflow as tf


class LostRecords:
    """Counts lost records by file, inside each replica's training step.

    Args:
        files: paths of the files; a batch's ``lost`` counts them from 1.
        strategy: the run's strategy.
    """

    def __init__(self, files: Sequence[str], strategy: tf.distribute.Strategy) -> None:
        self._files, self._strategy = list(files), strategy
        with strategy.scope():
            # Each replica has its own counts, which need no communication. They are floats, which
            # are exact up to 2 ** 24. TensorFlow keeps a GPU's 32-bit integers on the host, and
            # every step would wait for the host.
            self._counts = tf.Variable(
                tf.zeros([len(self._files) + 1]),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )

    def add(self, batch: Mapping[str, tf.Tensor]) -> None:
        """Counts the lost records of a replica's batch; call it in the replica's step."""
        lost = batch["lost"]
        number = len(self._files) + 1
        each = tf.ones_like(lost, tf.float32)
        self._counts.assign_add(tf.math.unsorted_segment_sum(each, lost, number))

    def taken(self) -> collections.Counter[str]:
        """The records lost in the steps of this process, by file; waits for those steps."""
        counts = sum(own.numpy() for own in self._strategy.experimental_local_results(self._counts))
        pairs = zip(self._files, counts[1:], strict=True)
        return collections.Counter({file: int(count) for file, count in pairs if count})
