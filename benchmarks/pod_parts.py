"""Measures the parts of a training step for ``pod_scale.py`` and ``worker_latency.py``.

Each part runs in its own process, which ``measure.in_child`` starts.
"""

import argparse
import json
import math
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure
from pod_model import ring

PRESET, IMAGE_SIZE, SEQUENCE, PIECES = "align_nano_tiny", 64, 24, 2_000


def run(part, one_core=False, **case):
    """Measures one part, in its own process."""
    if one_core:
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    import tensorflow as tf

    if part == "sizes":
        return print(json.dumps(sizes_of_preset(**case)))
    if part == "step":
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * case["replicas"]
        tf.config.set_logical_device_configuration(cpu, devices)
    parts = {"towers": towers, "loss": loss, "optimizer": optimizer, "step": whole_step}
    step, facts = parts[part](**case)
    measure.report(step, rounds=4, **facts)


def make_model(**options):
    """Returns the compiled model and a function that makes a batch."""
    import tensorflow as tf

    from align_keras import AlignDualEncoder, Lamb, build_backbone

    model = AlignDualEncoder(build_backbone(PRESET, PIECES, SEQUENCE), initial_temperature=0.1)
    model.compile(Lamb(1e-3), **options)
    model.optimizer.build(model.trainable_variables)

    def make_batch(pairs):
        batch = measure.random_batch(pairs, IMAGE_SIZE, SEQUENCE, PIECES)
        ids = tf.range(1, pairs + 1, dtype=tf.int64)
        return {**batch, "image_ids": ids, "caption_ids": ids}

    return model, make_batch


def sizes_of(backbone):
    """Returns the ``Sizes`` of a model as a dict; the temperature also counts as a weight."""
    import keras

    channels = [
        layer.moving_mean.shape[0]
        for layer in backbone.image_encoder._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    return {
        "width": backbone.projection_dim,
        "weights": sum(math.prod(v.shape) for v in backbone.trainable_variables) + 1,
        "norms": len(channels),
        "channels": sum(channels),
    }


def sizes_of_preset(preset):
    """Returns the sizes of a named model with the paper's 100,000 word pieces."""
    from align_keras import build_backbone

    return sizes_of(build_backbone(preset, 100_000, 64))


def towers(pairs):
    """Returns a forward and backward pass of one replica's pairs, with an arbitrary gradient."""
    import tensorflow as tf

    model, make_batch = make_model()
    batch = make_batch(pairs)
    inputs = {name: batch[name] for name in model.backbone.input}
    variables = [v.value for v in model.backbone.trainable_variables]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = model.backbone(inputs, training=True)
            total = tf.add_n([tf.reduce_sum(value) for value in outputs.values()])
        return tf.linalg.global_norm(tape.gradient(total, variables))

    return lambda: step().numpy(), sizes_of(model.backbone)


def loss(pairs, replicas):
    """Returns the loss and gradient of one replica's rows against the columns of all replicas."""
    import tensorflow as tf

    from align_keras.losses.tiled import rows_of_a_tile, tiled_losses
    from align_keras.models.presets import PRESETS

    shape = [pairs, PRESETS[PRESET]["projection_dim"]]
    inputs = [tf.math.l2_normalize(tf.random.normal(shape), axis=1) for _ in range(2)]
    inputs.append(tf.constant(0.05))
    ids = [tf.range(1, pairs + 1, dtype=tf.int64) + i for i in range(2)]

    def gather(value):
        # Rows of other replicas, simulated by shifted copies of the rows of this replica.
        parts = [value, *[tf.roll(value, i, axis=0) for i in range(1, replicas)]]
        return tf.concat(parts, axis=0)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            i2t, t2i, *_ = tiled_losses(
                *inputs,
                tile_rows=min(pairs, rows_of_a_tile(pairs * replicas)),
                ids=ids,
                label_smoothing=0.1,
                replicas=replicas,
                gather=gather,
            )
            total = tf.reduce_mean(i2t) + tf.reduce_mean(t2i)
        return tape.gradient(total, inputs)

    return lambda: step()[0].numpy(), {}


def optimizer():
    """Returns the LAMB step of all weights."""
    import tensorflow as tf

    model, _ = make_model()
    variables = model.trainable_variables
    gradients = [tf.random.normal(variable.shape) for variable in variables]
    step = tf.function(lambda: model.optimizer.apply(gradients, variables))

    def take():
        step()
        return model.optimizer.iterations.numpy()

    return take, {}


def whole_step(pairs, replicas, form):
    """Returns a real training step on logical devices and the bytes that the devices exchange."""
    import tensorflow as tf

    from align_keras import distribution

    distribution.replicas.form_of_gathering = lambda _: form
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    received = []
    context = tf.distribute.ReplicaContext
    all_gather, all_reduce = context.all_gather, context.all_reduce

    def size_of(value):
        return value.dtype.size * math.prod(value.shape)

    def counted_gather(self, value, axis, **options):
        received.append(size_of(value) * (replicas - 1))
        return all_gather(self, value, axis, **options)

    def counted_reduce(self, reduce_op, values, **options):
        received.append(ring(sum(size_of(v) for v in tf.nest.flatten(values)), replicas))
        return all_reduce(self, reduce_op, values, **options)

    context.all_gather, context.all_reduce = counted_gather, counted_reduce
    with strategy.scope():
        model, make_batch = make_model(loss_tile_rows=pairs)
    shares = strategy.experimental_distribute_values_from_function(lambda _: make_batch(pairs))
    step = tf.function(lambda: strategy.run(model.train_step, args=(shares,)))

    def take():
        step()
        return model.optimizer.iterations.numpy()

    take()
    # Each replica is traced once. Values that reach other devices twice, such as the gradient of a
    # gradient, are counted where TensorFlow calls the collective.
    return take, {"received": sum(received) / replicas}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--case", required=True, help="run one part, given as JSON, in this process"
    )
    sys.exit(run(**json.loads(parser.parse_args().case)))
