"""Times one training step of small EfficientNet towers on the CPU.

    python benchmarks/image_towers.py

The towers are candidates for the image tower of ``align_nano_tiny``. Each runs a forward and
backward pass on 128 images of 64 pixels. The towers take turns for several rounds. Images per
second and the ratio to the scaled-down B0 are medians.
"""

import os
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_hub
import tensorflow as tf

from align_keras import ImageEncoder
from align_keras.models import presets

BATCH_SIZE = 128
ROUNDS = 7
NANO = presets.IMAGE_ENCODERS["efficientnet_nano"]


def stages(filters, repeats, expansions, strides, types, ratios, stem=16, **others):
    """Returns arguments of ``EfficientNetBackbone`` for 3 x 3 stages of the given widths."""
    count = len(filters)
    return {
        **NANO,
        "stackwise_kernel_sizes": [3] * count,
        "stackwise_input_filters": [stem, *filters[:-1]],
        "stackwise_output_filters": filters,
        "stackwise_num_repeats": repeats,
        "stackwise_expansion_ratios": expansions,
        "stackwise_strides": strides,
        "stackwise_block_types": types,
        "stackwise_squeeze_and_excite_ratios": ratios,
        "stackwise_force_input_filters": [0] * count,
        "stackwise_nores_option": [False] * count,
        **others,
    }


CANDIDATES = {
    "B0, half the width": {
        **presets.IMAGE_ENCODERS["efficientnet_b3"],
        "width_coefficient": 0.5,
        "depth_coefficient": 0.5,
        "dropout": 0.0,
    },
    "V2, late strides": stages(
        [16, 32, 64, 128],
        [1, 1, 2, 2],
        [1, 4, 4, 4],
        [1, 2, 2, 2],
        ["fused"] * 3 + ["unfused"],
        [0, 0, 0, 0.25],
    ),
    "V2, early strides": stages(
        [24, 48, 96, 160],
        [1, 1, 2, 2],
        [1, 3, 3, 4],
        [2, 2, 2, 1],
        ["fused"] * 3 + ["unfused"],
        [0, 0, 0, 0.25],
        stem=24,
    ),
    "the same, ReLU": stages(
        [24, 48, 96, 160],
        [1, 1, 2, 2],
        [1, 3, 3, 4],
        [2, 2, 2, 1],
        ["fused"] * 3 + ["unfused"],
        [0, 0, 0, 0.25],
        stem=24,
        activation="relu",
    ),
    "nano: all fused": NANO,
}


def make_step(arguments):
    """Returns a compiled forward and backward pass, and the number of the tower's parameters."""
    tower = ImageEncoder(keras_hub.models.EfficientNetBackbone(**arguments))

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tower(images, training=True)))
        return tape.gradient(loss, [variable.value for variable in tower.trainable_variables])

    return step, tower.count_params()


def main():
    """Measures the towers and prints the table."""
    images = tf.random.normal((BATCH_SIZE, 64, 64, 3))
    steps = {name: make_step(arguments) for name, arguments in CANDIDATES.items()}
    for step, _ in steps.values():
        step(images)
    seconds = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, (step, _) in steps.items():
            start = time.perf_counter()
            step(images)
            seconds[name].append(time.perf_counter() - start)
    base = next(iter(seconds.values()))
    print(f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}")
    print(f"{'tower':<20}{'parameters':>12}{'images/s':>10}{'ratio':>8}")
    for name, times in seconds.items():
        speed = BATCH_SIZE / statistics.median(times)
        ratio = statistics.median(b / t for b, t in zip(base, times, strict=True))
        print(f"{name:<20}{steps[name][1]:>12,}{speed:>10,.0f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
