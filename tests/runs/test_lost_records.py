"""Lost records are counted by file in the training steps of all replicas."""

import numpy as np
import pytest
import tensorflow as tf

from align_keras.runs.lost_records import LostRecords

#: Lost records in two steps of two replicas; 0 means none.
LOST = np.array([[[0, 2, 2, 0], [1, 0, 0, 0]], [[0, 0, 0, 0], [2, 2, 3, 0]]], np.int32)


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_replicas_losses_are_counted(replicas, mirrored):
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    lost = LostRecords(["a", "b", "c"], strategy)
    assert not lost.taken()

    @tf.function
    def step(batch):
        strategy.run(lost.add, args=({"lost": batch},))

    for batches in LOST:
        shares = batches[:replicas]
        step(
            strategy.experimental_distribute_values_from_function(
                lambda context, shares=shares: tf.constant(shares[context.replica_id_in_sync_group])
            )
            if replicas == 2
            else tf.constant(shares[0])
        )
    expected = LOST[:, :replicas]
    counts = {name: int((expected == n).sum()) for n, name in enumerate("abc", 1)}
    assert lost.taken() == {name: count for name, count in counts.items() if count}
