"""A model of a training step's cost on 1 to 1,024 replicas, from parts measured here.

    python benchmarks/pod_scale.py

Measured on one device: towers, loss and optimizer of one replica, time and memory; the loss with as
many columns as all replicas have pairs. Counted: what a replica receives, and checked against every
collective of a real step on 2 and 4 replicas. Assumed: the bandwidth and latency of the links
(flags), that bytes go round in rings and a collective waits for a tree of hops, that replicas are
alike and nothing overlaps.

A real step on 2 and 4 logical CPU devices that share one core should take 2 and 4 times the towers,
loss and optimizer of one replica on that core.
"""

import argparse
import json
import math
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

PRESET, IMAGE_SIZE, SEQUENCE, PIECES = "align_nano_tiny", 64, 24, 2_000
REPLICAS = (1, 2, 4, 16, 64, 256, 1_024)
CHECKED = (2, 4)
BYTES = 4
# Gathers and sums of a step one after another, besides batch norm's five a layer: captions, two of
# ids, own logits, weights of the gradient, powers, columns, captions' gradient, gradients, losses.
COLLECTIVES = 10
METRICS = 5
MIB = 1 << 20


def received_bytes(replicas, pairs, width, weights, channels):
    """What a replica receives in one step: ``(for the loss, for the rest)``, bytes.

    For the loss it gathers the captions' embeddings, two ids and two numbers a pair; it sums five
    numbers a column and the gradient of the captions' embeddings. Summed beside: the gradients,
    and of each synchronised batch norm three numbers a channel and the gradients of two. In a
    ring a sum passes every replica twice.
    """
    gathered = (replicas - 1) * pairs * (width * BYTES + 2 * 8 + 2 * BYTES)
    summed = replicas * pairs * (5 + width) * BYTES
    return (
        gathered + ring(summed, replicas),
        ring((weights + 5 * channels + METRICS) * BYTES, replicas),
    )


def ring(size, replicas):
    """Bytes that a replica receives while ``size`` bytes are summed over all."""
    return 2 * size * (replicas - 1) / replicas


def run(part, pairs, replicas=1, one_core=False):
    """One part, in its own process."""
    if one_core:
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    import tensorflow as tf

    if part == "step":
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, devices)
    parts = {"towers": towers, "loss": loss, "optimizer": optimizer, "step": whole_step}
    step, facts = parts[part](pairs, replicas)
    measure.report(step, rounds=4, **facts)


def make_model(**options):
    """The model, compiled, and a function that makes a batch."""
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


def towers(pairs, _):
    """Forward and backward pass of one replica's pairs, to an arbitrary gradient."""
    import keras
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

    weights = sum(math.prod(variable.shape) for variable in variables)
    channels = [
        layer.moving_mean.shape[0]
        for layer in model.backbone.image_encoder._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    facts = {
        "width": model.backbone.projection_dim,
        "weights": weights + 1,  # the temperature
        "norms": len(channels),
        "channels": sum(channels),
    }
    return lambda: step().numpy(), facts


def loss(pairs, replicas):
    """Loss and gradient of one replica's rows against the columns of all."""
    import tensorflow as tf

    from align_keras.losses.tiled import rows_of_a_tile, tiled_losses
    from align_keras.models.presets import PRESETS

    shape = [pairs, PRESETS[PRESET]["projection_dim"]]
    inputs = [tf.math.l2_normalize(tf.random.normal(shape), axis=1) for _ in range(2)]
    inputs.append(tf.constant(0.05))
    ids = [tf.range(1, pairs + 1, dtype=tf.int64) + i for i in range(2)]

    def gather(value):
        # Other replicas' rows, as many and as different.
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


def optimizer(_, __):
    """LAMB's step for all weights."""
    import tensorflow as tf

    model, _ = make_model()
    variables = model.trainable_variables
    gradients = [tf.random.normal(variable.shape) for variable in variables]
    step = tf.function(lambda: model.optimizer.apply(gradients, variables))

    def take():
        step()
        return model.optimizer.iterations.numpy()

    return take, {}


def whole_step(pairs, replicas):
    """A real training step on logical devices, with a count of what crosses them."""
    import tensorflow as tf

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
    # Each replica is traced once. What reaches other devices twice, as a gradient's own gradient
    # does, is counted where TensorFlow calls for it.
    return take, {"received": sum(received) / replicas}


def measure_parts(pairs, sizes, **options):
    """What one replica does by itself: towers, optimizer, and the loss by number of replicas."""
    alone = [
        measure.in_child(__file__, part=part, pairs=pairs, **options)
        for part in ("towers", "optimizer")
    ]
    for replicas in sizes:
        options |= {"part": "loss", "pairs": pairs, "replicas": replicas}
        yield replicas, *alone, measure.in_child(__file__, **options)


def main(pairs, bandwidth, latency):
    """Measures the parts, prints the table of the model, then the checks."""
    print(
        f"{measure.machine()}; {PRESET}, {pairs} pairs a replica; links of {bandwidth:g} GB/s and "
        f"{latency:g} us\n"
    )
    print(
        f"{'replicas':>8}{'pairs':>9}{'loss MiB':>10}{'rest MiB':>10}{'memory MiB':>12}"
        f"{'towers s':>10}{'loss s':>8}{'LAMB s':>8}{'links s':>9}{'step s':>8}{'scaling':>9}"
    )
    alone = None
    for replicas, tower, update, softmax in measure_parts(pairs, REPLICAS):
        seconds = [part["seconds"] for part in (tower, softmax, update)]
        width, weights = tower["width"], tower["weights"]
        received = received_bytes(replicas, pairs, width, weights, tower["channels"])
        hops = (COLLECTIVES + 5 * tower["norms"]) * 2 * math.log2(replicas)
        links = sum(received) / (bandwidth * 1e9) + hops * latency * 1e-6
        # Weights and LAMB's two moments stay; gradients are in the towers' peak, and towers and
        # loss take turns.
        memory = max(tower["peak_mib"], softmax["peak_mib"])
        memory += 3 * weights * BYTES / MIB
        step = sum(seconds) + links
        alone = alone or step
        print(
            f"{replicas:>8,}{replicas * pairs:>9,}"
            f"{received[0] / MIB:>10,.1f}{received[1] / MIB:>10,.1f}{memory:>12,.0f}"
            f"{seconds[0]:>10.3f}{seconds[1]:>8.3f}{seconds[2]:>8.3f}{links:>9.4f}"
            f"{step:>8.3f}{alone / step:>9.0%}",
            flush=True,
        )
    print("\nchecked on logical devices that share one core:")
    print(f"{'replicas':>8}{'MiB modelled':>14}{'counted':>9}{'s modelled':>12}{'measured':>10}")
    for replicas, *parts in measure_parts(pairs, CHECKED, one_core=True):
        seconds = [part["seconds"] for part in parts]
        case = {"part": "step", "pairs": pairs, "replicas": replicas, "one_core": True}
        real = measure.in_child(__file__, **case)
        modelled = sum(received_bytes(replicas, pairs, width, weights, parts[0]["channels"])) / MIB
        print(
            f"{replicas:>8,}{modelled:>14.3f}{real['received'] / MIB:>9.3f}"
            f"{replicas * sum(seconds):>12.3f}{real['seconds']:>10.3f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="one part as JSON, in this process")
    parser.add_argument("--pairs", type=int, default=64, help="of a replica")
    parser.add_argument("--bandwidth", type=float, default=12.5, help="GB/s into a replica")
    parser.add_argument("--latency", type=float, default=20.0, help="microseconds a hop")
    arguments = parser.parse_args()
    if arguments.case:
        sys.exit(run(**json.loads(arguments.case)))
    sys.exit(main(arguments.pairs, arguments.bandwidth, arguments.latency))
