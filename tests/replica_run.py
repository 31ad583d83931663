"""Takes training steps on the replicas of a strategy and saves the results.

    LOGICAL_CPUS=4 python tests/replica_run.py FILE.npz [CASE ...]

A process can have only one MirroredStrategy, so tests of several strategies run this script. With
``TF_CONFIG``, it is one of several workers. ``GATHERING`` forces a way to gather, such as that of
GPUs.
"""

import os
import sys

import keras
import numpy as np
import tensorflow as tf
from conftest import LOGICAL_CPUS, build_tiny_model, make_batch

from align_keras import distribution, optimizers

STEPS = 2
#: The optimizer, its options, and further arguments of ``compile``.
CASES = {
    "lamb, clipped, averaged": (
        "lamb",
        {"weight_decay": 0.1, "ema_momentum": 0.5},
        {"global_clipnorm": 0.05, "mask_false_negatives": False},
    ),
    "sgd, clipped, tiles, micro-batches": (
        "sgd",
        {},
        {"global_clipnorm": 0.05, "loss_tile_rows": 3, "micro_batch_size": 1},
    ),
}


def run(strategy, case):
    """Runs one case with synchronised batch norm; returns arrays by name."""
    optimizer, options, compile_options = CASES[case]
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = build_tiny_model(synchronized=True, name="align")
        variables = model.trainable_variables
        model.compile(
            optimizers.make_optimizer(optimizer, 0.05, variables, **options), **compile_options
        )
        model.optimizer.build(variables)
    batch, replicas = make_batch(), strategy.num_replicas_in_sync
    shares = strategy.experimental_distribute_values_from_function(
        lambda context: {
            name: tf.constant(np.split(value, replicas)[context.replica_id_in_sync_group])
            for name, value in batch.items()
        }
    )
    compute = model.compute_gradients

    def step(share):
        kept = []

        def compute_and_keep(batch):
            results, gradients = compute(batch)
            kept.extend(gradients)
            return results, gradients

        model.compute_gradients = compute_and_keep
        model.train_step(share)
        return kept

    run_step = tf.function(lambda: strategy.run(step, args=(shares,)), autograph=False)
    gradients, *_ = [run_step() for _ in range(STEPS)]
    results = {
        f"gradient/{variable.path}": strategy.experimental_local_results(gradient)[0].numpy()
        for variable, gradient in zip(variables, gradients, strict=True)
    }
    results |= {f"metric/{name}": v.numpy() for name, v in model.get_metrics_result().items()}
    results |= {f"weight/{v.path}": v.numpy() for v in model.backbone.variables}
    results |= {
        # The optimizer's own name is left out, because it differs for a second optimizer in a
        # process.
        f"optimizer/{index}/{v.path.split('/', 1)[-1]}": v.numpy()
        for index, v in enumerate(model.optimizer.variables)
    }
    return {f"{case}/{name}": value for name, value in results.items()}


def gather_both_ways(strategy, counts):
    """Gathers rows in both ways; ``counts`` are the numbers of rows of the replicas.

    Returns:
        ``(expected, found)``. ``expected`` has the ``rows`` and ``ids`` of all replicas and the
        ``gradients`` of all rows. ``found`` has the same for each way, as a list over this
        process's replicas, but the gradients are those of the replica's own rows only.
    """
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(sum(counts), 3)).astype("float32")
    ids = rng.integers(2**53, 2**63, sum(counts))
    # The weights are small integers, whose sums are exact in any order.
    weights = rng.integers(-8, 8, (len(counts), *rows.shape)).astype("float32")

    def gather(form):
        replica, _ = distribution.replica_place()
        own = tf.where(tf.equal(np.repeat(range(len(counts)), counts), tf.cast(replica, tf.int64)))
        own = tf.squeeze(own, 1)  # the size is not known while tracing
        if len(set(counts)) == 1:
            own = tf.ensure_shape(own, counts[0])
        with tf.GradientTape() as tape:
            own_rows = tf.gather(rows, own)
            tape.watch(own_rows)
            all_rows = distribution.gather_replicas(own_rows, form)
            loss = tf.reduce_sum(all_rows * tf.gather(weights, replica))
        return {
            "rows": all_rows,
            "ids": distribution.gather_replicas(tf.gather(ids, own), form),
            "gradients": tape.gradient(loss, own_rows),
        }

    found = {}
    for form in distribution.GATHERINGS:
        run_step = tf.function(
            lambda form=form: strategy.run(gather, args=(form,)), autograph=False
        )
        found[form] = {
            name: [value.numpy() for value in strategy.experimental_local_results(values)]
            for name, values in run_step().items()
        }
    # Each replica weighs all rows by its own numbers; a gradient is the sum over the replicas.
    return {"rows": rows, "ids": ids, "gradients": weights.sum(axis=0)}, found


def main(output, *cases):
    """Runs some or all cases, either as a worker of ``TF_CONFIG`` or on logical CPU devices."""
    if "TF_CONFIG" in os.environ:
        strategy = distribution.make_strategy("multi_worker")
    else:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(LOGICAL_CPUS)])
    if form := os.environ.get("GATHERING"):
        distribution.replicas.form_of_gathering = lambda _: form
    worker, _ = distribution.worker_place(strategy)
    results = {"steps": distribution.gather_from_workers(strategy, (-2, 1_200_000)[worker])}
    replicas = strategy.num_replicas_in_sync
    expected, found = gather_both_ways(strategy, [2] * replicas)
    for form, values in {"expected": expected, **found}.items():
        results |= {f"gathered/{form}/{name}": value for name, value in values.items()}
    for case in cases or CASES:
        results |= run(strategy, case)
    np.savez(output, replicas=replicas, **results)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
