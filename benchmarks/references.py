"""Compares loss, LAMB and recalls with widely used implementations.

    pip install torch==2.13.0
    pip install --no-deps open_clip_torch==3.3.0 timm==1.0.31 clip-benchmark==1.6.2
    python benchmarks/references.py

Random inputs go through this package and through open_clip's ``ClipLoss``, timm's ``Lamb`` and
CLIP_benchmark's ``recall_at_k``. The script prints the largest differences, relative to the largest
value, and exits with 1 if a difference exceeds 1e-5. Tests compare checkpoints and word pieces
(``tests/models/conversion/test_parity.py``, ``tests/preprocessing/test_tokenizer_reference.py``).
"""

import importlib
import importlib.util
import os
import sys
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
import torch

from align_keras import Lamb
from align_keras.evaluation import retrieval
from align_keras.losses import global_losses

LIMIT = 1e-5


def load_alone(name):
    """Imports a module without its packages, whose own imports need other versions of torch."""
    *packages, _ = name.split(".")
    for end in range(1, len(packages) + 1):
        package = ".".join(packages[:end])
        if package not in sys.modules:
            module = types.ModuleType(package)
            module.__path__ = importlib.util.find_spec(package).submodule_search_locations
            sys.modules[package] = module
    return importlib.import_module(name)


ClipLoss = load_alone("open_clip.loss").ClipLoss
TimmLamb = load_alone("timm.optim.lamb").Lamb
recall_at_k = load_alone("clip_benchmark.metrics.zeroshot_retrieval").recall_at_k


def unit_rows(rng, rows, width):
    """Returns random float32 embeddings of unit norm."""
    values = rng.normal(size=(rows, width)).astype("float32")
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def difference(found, wanted):
    """Returns the largest difference, relative to the largest value."""
    found, wanted = np.asarray(found, "float64"), np.asarray(wanted, "float64")
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))


def loss_and_gradients(rng):
    """Compares the losses; ALIGN's is the sum over both directions, and CLIP's is their mean."""
    images, texts = unit_rows(rng, 256, 64), unit_rows(rng, 256, 64)
    ours = [tf.Variable(images), tf.Variable(texts)]
    with tf.GradientTape() as tape:
        loss = global_losses(*ours, tf.constant(0.05))["loss"]
    theirs = [torch.tensor(value, requires_grad=True) for value in (images, texts)]
    expected = 2 * ClipLoss()(*theirs, logit_scale=torch.tensor(1 / 0.05))
    expected.backward()
    yield "loss, open_clip", difference(loss, expected.item())
    gradients = zip(tape.gradient(loss, ours), theirs, strict=True)
    yield (
        "its gradients",
        max(difference(found, wanted.grad.numpy()) for found, wanted in gradients),
    )


def lamb_steps(rng):
    """Compares ten steps of a kernel, with weight decay inside the trust ratio."""
    start = rng.normal(size=(32, 16)).astype("float32")
    gradients = rng.normal(size=(10, 32, 16)).astype("float32")
    ours = keras.Variable(start, name="kernel")
    optimizer = Lamb(1e-2, weight_decay=0.1)
    optimizer.build([ours])
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = TimmLamb([theirs], lr=1e-2, eps=1e-6, weight_decay=0.1, max_grad_norm=None)
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)])
        theirs.grad = torch.tensor(gradient)
        reference.step()
    yield "ten steps of LAMB, timm", difference(ours, theirs.detach().numpy())


def recalls(rng):
    """Compares recalls for five captions per image, as in Flickr30K and COCO."""
    images, texts = unit_rows(rng, 200, 16), unit_rows(rng, 1000, 16)
    image_of_text = np.repeat(np.arange(200), 5)
    texts += 0.6 * images[image_of_text]
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    metrics, _ = retrieval.full_metrics(images, texts, image_of_text)
    scores = torch.tensor(texts @ images.T)
    pairs = torch.tensor(image_of_text[:, None] == np.arange(200))
    for k in (1, 5, 10):
        # CLIP_benchmark counts an image as found if any of its captions is found.
        for name, score, positive in (("t2i", scores, pairs), ("i2t", scores.T, pairs.T)):
            found = recall_at_k(score, positive, k)
            expected = (found > 0).float().mean().item()
            yield (
                f"{name} R@{k}, CLIP_benchmark",
                difference(metrics[f"{name}_recall_at_{k}"], expected),
            )


def main():
    """Prints a line for each comparison; returns whether all of them agree."""
    rng = np.random.default_rng(0)
    results = [*loss_and_gradients(rng), *lamb_steps(rng), *recalls(rng)]
    for name, value in results:
        print(f"{name:<28} {value:.1e}")
    return all(value < LIMIT for _, value in results)


if __name__ == "__main__":
    sys.exit(0 if main() else "the references do not agree")
