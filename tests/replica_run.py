"""Takes training steps on a strategy's replicas and saves what came of them.

    LOGICAL_CPUS=4 python tests/replica_run.py FILE.npz [CASE ...]

A process can have one MirroredStrategy only, so tests of several run this. With ``TF_CONFIG`` it is
one of several workers.
"""

import os
import sys

import keras
import numpy as np
import tensorflow as tf
from conftest import LOGICAL_CPUS, build_tiny_model, make_batch

from align_keras import distribution, optimizers

STEPS = 2
#: Optimizer, its options, and what else ``compile`` is given.
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
    """One case: arrays by name. Batch norm is synchronised."""
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
        # Without the optimizer's own name: a second one of a process is another.
        f"optimizer/{index}/{v.path.split('/', 1)[-1]}": v.numpy()
        for index, v in enumerate(model.optimizer.variables)
    }
    return {f"{case}/{name}": value for name, value in results.items()}


def main(output, *cases):
    """Runs some cases, or all, on ``TF_CONFIG``'s workers, or on logical CPU devices."""
    if "TF_CONFIG" in os.environ:
        strategy = distribution.make_strategy("multi_worker")
    else:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(LOGICAL_CPUS)])
    worker, _ = distribution.worker_place(strategy)
    results = {"steps": distribution.gather_from_workers(strategy, (-2, 1_200_000)[worker])}
    for case in cases or CASES:
        results |= run(strategy, case)
    np.savez(output, replicas=strategy.num_replicas_in_sync, **results)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
