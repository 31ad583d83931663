"""Measures the image towers with and without oneDNN, on a CPU.

    python benchmarks/onednn.py

On x86 CPUs without VNNI instructions (AVX-512 VNNI, AVX-VNNI), TensorFlow uses oneDNN only if
``TF_ENABLE_ONEDNN_OPTS`` is 1. ``import align_keras`` sets the variable, unless it is set. Every
case runs in its own process, one after another, and the smallest time of several rounds counts.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

ROUNDS = 8
#: Name of the tower, side of its images in pixels, images per batch.
TOWERS = (("align_nano_tiny", 64, 128), ("efficientnet_b0", 224, 32), ("efficientnet_b3", 289, 16))


def build_tower(name):
    """Builds an image tower by the name in ``TOWERS``."""
    from align_keras import build_backbone, build_image_encoder

    if name.startswith("align"):
        return build_backbone(name).image_encoder
    return build_image_encoder(name)


def run(name, side, batch_size, train):
    """Measures one case, in its own process."""
    import tensorflow as tf

    from align_keras.runs.memory import keep_freed_memory

    keep_freed_memory()
    tower = build_tower(name)
    images = tf.random.uniform([batch_size, side, side, 3], -1.0, 1.0, seed=0)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tower(images, training=train))
        return tape.gradient(loss, tower.trainable_variables) if train else loss

    measure.report(step, ROUNDS)


def main():
    """Measures every case and prints the table."""
    print(f"{measure.machine()}\n")
    print(f"{'image tower':<26}{'step':<11}{'images/s without':>17}{'with':>8}{'ratio':>8}")
    for name, side, batch_size in TOWERS:
        for train in (False, True):
            case = {"name": name, "side": side, "batch_size": batch_size, "train": train}
            speeds = [
                batch_size
                / measure.in_child(__file__, {"TF_ENABLE_ONEDNN_OPTS": value}, **case)["seconds"]
                for value in "01"
            ]
            what, step = f"{name} at {side}", "training" if train else "inference"
            ratio = speeds[1] / speeds[0]
            print(
                f"{what:<26}{step:<11}{speeds[0]:>17,.1f}{speeds[1]:>8,.1f}{ratio:>8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main())
