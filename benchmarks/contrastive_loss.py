"""Compares the time and memory of the tiled and the dense loss, with gradients, on one CPU device.

    python benchmarks/contrastive_loss.py

Embeddings are random and 640 wide, and label smoothing is 0.1. Both forms run in a ``tf.function``.
Each case runs in its own process, and the two forms alternate. The dense form is omitted at sizes
where it would need more than 20 GiB.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

DIM = 640
PAIRS = (4_096, 8_192, 16_384, 32_768, 65_536)
DENSE_UP_TO = 16_384


def run(form, pairs, rounds):
    """Measures one case, in its own process."""
    import tensorflow as tf

    from align_keras.losses.contrastive import dense_losses
    from align_keras.losses.tiled import rows_of_a_tile, tiled_losses

    loss, options = {
        "dense": (dense_losses, {}),
        "tiled": (tiled_losses, {"tile_rows": rows_of_a_tile(pairs)}),
    }[form]
    generator = tf.random.Generator.from_seed(0)
    inputs = [tf.math.l2_normalize(generator.normal([pairs, DIM]), axis=1) for _ in range(2)]
    inputs.append(tf.constant(0.05))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            i2t, t2i, *_ = loss(*inputs, label_smoothing=0.1, **options)
            total = tf.reduce_mean(i2t) + tf.reduce_mean(t2i)
        return total, tape.gradient(total, inputs)

    measure.report(lambda: step()[0].numpy(), rounds)


def main(sizes):
    """Measures every size and prints the table."""
    print(f"{measure.machine()}; {DIM} wide\n")
    print(
        f"{'pairs':>7}{'dense s':>10}{'tiled s':>10}{'ratio':>8}{'dense MiB':>12}{'tiled MiB':>12}"
    )
    for pairs in sizes:
        rounds = 3 if pairs <= DENSE_UP_TO else 1
        dense = None
        if pairs <= DENSE_UP_TO:
            dense = measure.in_child(__file__, form="dense", pairs=pairs, rounds=rounds)
        tiled = measure.in_child(__file__, form="tiled", pairs=pairs, rounds=rounds)
        columns = [
            f"{dense['seconds']:.2f}" if dense else "-",
            f"{tiled['seconds']:.2f}",
            f"{tiled['seconds'] / dense['seconds']:.2f}" if dense else "-",
            f"{dense['peak_mib']:,.0f}" if dense else "-",
            f"{tiled['peak_mib']:,.0f}",
        ]
        print(f"{pairs:>7,}" + "".join(f"{column:>11}" for column in columns), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    parser.add_argument("--pairs", type=int, nargs="+", default=PAIRS, help="global batch sizes")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main(arguments.pairs))
