"""Writes an experiment's training step as HLO: the part of tpu_compile.py with TensorFlow."""

import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

ROOT = Path(__file__).parent.parent
_LARGE = 1 << 20
_SPECIAL_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write(experiment, settings, pairs, replicas, path):
    """Traces one replica's step, writes its HLO and prints its facts as JSON.

    Args:
        experiment: a name of ``recipes/experiments.py``.
        settings: the changed settings, by name.
        pairs: number of pairs of one replica.
        replicas: number of replicas; with several, the step contains their collectives.
        path: path of the file for the serialised HLO.
    """
    import tensorflow as tf

    sys.path.insert(0, str(ROOT / "recipes"))
    import experiments

    start = time.perf_counter()
    run = experiments.PRETRAINING[experiment].replace(batch_size=pairs * replicas, **settings)
    with replicas_of_a_slice(replicas), tf.variable_creator_scope(without_values):
        model, batch = make_model_and_batch(run, pairs)
        step = tf.function(model.train_step, jit_compile=True)
        hlo = step.experimental_get_compiler_ir(batch)(stage="hlo_serialized")
    Path(path).write_bytes(hlo)
    facts = {
        "weights": sum(math.prod(v.shape) for v in model.trainable_variables),
        "step_seconds": time.perf_counter() - start,
    }
    print(json.dumps(facts))


def make_model_and_batch(run, pairs):
    """Returns the model of a run, compiled as in its recipe, and a batch of the right size."""
    import tensorflow as tf

    from align_keras import AlignPreprocessor
    from align_keras.models import precision
    from align_keras.preprocessing.fields import PIXELS
    from align_keras.runs.model import make_model, with_gelu
    from align_keras.runs.pretraining_data import with_sizes

    data = with_sizes(run.data, "")
    words = [f"word{number}" for number in range(data.vocabulary_size - len(_SPECIAL_PIECES))]
    preprocessor = AlignPreprocessor(
        _SPECIAL_PIECES + words, data.image_size, data.resize_size, data.sequence_length
    )
    with precision.dtype_policy(run.model.precision):
        model = make_model(with_gelu(run.model), run.optimizer, preprocessor, run.run.steps)
    model.optimizer.build(model.trainable_variables)
    one = measure.random_batch(1, data.image_size, data.sequence_length, data.vocabulary_size)
    one[PIXELS] = tf.cast(one.pop("images"), tf.uint8)  # this is the form that the pipeline gives
    one |= dict.fromkeys(("image_ids", "caption_ids"), tf.ones([1], tf.int64))
    batch = {name: untouched([pairs, *value.shape[1:]], value.dtype) for name, value in one.items()}
    return model, batch


def without_values(next_creator, **options):
    """Makes large variables without values: ALIGN's largest model needs 10 GB with LAMB."""
    import tensorflow as tf

    value = options["initial_value"]
    value = tf.convert_to_tensor(value() if callable(value) else value)
    if value.dtype.size * math.prod(value.shape) > _LARGE:
        value = untouched(value.shape, value.dtype)
    return next_creator(**{**options, "initial_value": value})


def untouched(shape, dtype):
    """Returns a tensor without meaningful values; this suffices because the step is only traced.

    The system allocates a page of memory only when it is written.
    """
    import tensorflow as tf

    return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=False)


@contextlib.contextmanager
def replicas_of_a_slice(replicas):
    """Makes this process trace the step as one of several replicas of a TPU.

    ``TPUStrategy`` needs a TPU. Four members of its replica context therefore replace those of the
    default one. Its ``CrossReplicaSum`` has no kernel for CPUs in TensorFlow, but ``XlaAllReduce``
    has one and becomes the same all-reduce.
    """
    if replicas == 1:
        yield
        return
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    group = [list(range(replicas))]

    def total(value):
        if value.dtype == tf.int64:
            # The op does not support int64. Two int32 halves are as many bytes, and they can be
            # summed separately: only one replica has values other than zero, so there is no carry.
            return tf.bitcast(total(tf.bitcast(value, tf.int32)), tf.int64)
        return gen_xla_ops.xla_all_reduce(value, group, "Add", "CrossReplica")

    @tf.custom_gradient
    def differentiable_total(value):
        return total(value), total

    def all_reduce(_, reduce_op, value, options=None):
        scale = replicas if reduce_op == tf.distribute.ReduceOp.MEAN else 1
        return tf.nest.map_structure(
            lambda one: (
                differentiable_total(tf.convert_to_tensor(one)) / scale
                if scale > 1
                else differentiable_total(tf.convert_to_tensor(one))
            ),
            value,
        )

    def all_gather(_, value, axis, options=None):
        """Gathers as ``TPUStrategy`` does: sums rows that are zero outside the replica's place."""
        assert axis == 0
        place = tf.one_hot(gen_xla_ops.xla_replica_id(), replicas, dtype=value.dtype)
        place = tf.reshape(place, [replicas] + [1] * value.shape.rank)
        summed = differentiable_total(place * value[None])
        return tf.reshape(summed, [replicas * value.shape[0], *value.shape[1:]])

    members = {
        "num_replicas_in_sync": property(lambda _: replicas),
        "replica_id_in_sync_group": property(lambda _: gen_xla_ops.xla_replica_id()),
        "all_reduce": all_reduce,
        "all_gather": all_gather,
    }
    context = type(tf.distribute.get_replica_context())
    with contextlib.ExitStack() as patches:
        for name, member in members.items():
            patches.enter_context(mock.patch.object(context, name, member))
        yield


if __name__ == "__main__":
    sys.exit(write(**json.loads(sys.argv[sys.argv.index("--case") + 1])))
