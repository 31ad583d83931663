"""Runs an exported model without this package; ``test_saved_model.py`` starts it as a process.

python tests/served.py SAVED_MODEL IMAGES.npz ANSWERS.npz
"""

import sys

# TF Text itself imports Keras, so Keras cannot be excluded.
sys.modules["align_keras"] = sys.modules["keras_hub"] = None

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry


def ops_of(path):
    """Returns the names of all ops in a SavedModel."""
    saved_model = saved_model_pb2.SavedModel()
    with open(f"{path}/saved_model.pb", "rb") as file:
        saved_model.ParseFromString(file.read())
    (graph,) = (meta.graph_def for meta in saved_model.meta_graphs)
    nodes = [*graph.node, *(n for function in graph.library.function for n in function.node_def)]
    functions = {function.signature.name for function in graph.library.function}
    return sorted({node.op for node in nodes} - functions)


def main(path, inputs, answers):
    ops = ops_of(path)
    # This is checked before TF Text registers its own ops.
    foreign = [op for op in ops if op_def_registry.get(op) is None]
    import tensorflow_text  # noqa: F401

    model = tf.saved_model.load(path)
    found = {"ops": ops, "foreign_ops": foreign}
    inputs = np.load(inputs, allow_pickle=True)
    for name in inputs.files:
        signature = name.partition("-")[0]
        values = inputs[name]
        key = "captions" if signature == "encode_text" else "images"
        value = tf.constant(values if values.dtype == np.uint8 else values.tolist())
        for output, tensor in model.signatures[signature](**{key: value}).items():
            found[f"{name}/{output}"] = tensor.numpy()
    np.savez(answers, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
