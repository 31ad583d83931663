"""How well frozen features classify, by nearest neighbours and by a linear layer; on arrays."""

from collections.abc import Sequence

import numpy as np

from align_keras import progress
from align_keras.errors import InputError
from align_keras.evaluation import retrieval
from align_keras.evaluation.metrics import RECALL_AT

#: The paper's settings for ImageNet: SGD with momentum for 100 epochs, no decay. Every 30 epochs,
#: the learning rate is multiplied by 0.2.
LEARNING_RATE, MOMENTUM, BATCH_SIZE, EPOCHS, DROP_EVERY, DROP = 0.1, 0.9, 1024, 100, 30, 0.2


def nearest_neighbour_ranks(
    images: np.ndarray,
    labels: np.ndarray | Sequence[int],
    train_images: np.ndarray,
    train_labels: np.ndarray | Sequence[int],
) -> np.ndarray:
    """The number of training images of other classes nearer than the nearest of the same class.

    Args:
        images: unit norm, ``(images, dim)``.
        labels: integers, ``(images,)``.
        train_images: unit norm, ``(train_images, dim)``.
        train_labels: integers, ``(train_images,)``.

    Returns:
        Integers from 0 (the best), ``(images,)``. Ties count as misses.

    Raises:
        InputError: if a class has no training image.
    """
    labels, train_labels = np.asarray(labels), np.asarray(train_labels)
    missing = sorted(set(labels.tolist()) - set(train_labels.tolist()))
    if missing:
        raise InputError(
            f"no training image of class {missing[0]} (missing for {len(missing)} in all)"
        )
    return retrieval.best_positive_ranks(images, train_images, labels, train_labels)


def nearest_neighbour_recall(
    ranks: np.ndarray,
    labels: np.ndarray | Sequence[int],
    train_labels: np.ndarray | Sequence[int],
    ks: Sequence[int] = RECALL_AT,
) -> tuple[dict[str, float], dict[str, float]]:
    """The paper's "KNN": whether a nearest training image among the first ``k`` has the same class.

    Args:
        ranks: as returned by ``nearest_neighbour_ranks``, ``(images,)``.
        labels: integers, ``(images,)``.
        train_labels: integers, ``(train_images,)``.
        ks: numbers of nearest images.

    Returns:
        ``(metrics, chance)``: dicts of fractions named ``knn_recall_at_1`` and so on. Chance is the
        recall for training images in random order.
    """
    labels, train_labels = np.asarray(labels), np.asarray(train_labels)
    right = np.bincount(train_labels)[labels]
    metrics = {f"knn_recall_at_{k}": retrieval.recall_at_k(ranks, k) for k in ks}
    chance = {
        f"knn_recall_at_{k}": retrieval.chance_recall_at_k(len(train_labels), right, k) for k in ks
    }
    return metrics, chance


def fit_linear_probe(
    features: np.ndarray,
    labels: np.ndarray | Sequence[int],
    num_classes: int,
    learning_rate: float = LEARNING_RATE,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Trains a linear layer on frozen features by the paper's recipe for ImageNet.

    The recipe is SGD with momentum 0.9 on the cross-entropy, for 100 epochs in batches of 1,024.
    Three choices are ours. Features are normalised to mean 0 and standard deviation 1 over the
    training images, so that one learning rate suits all towers. For small data sets, an epoch has
    at least eight batches. Images are not augmented, since features are computed once.

    Args:
        features: ``(images, dim)``.
        labels: integers, ``(images,)``.
        num_classes: number of classes.
        learning_rate: initial learning rate.
        epochs: passes over the data.
        seed: decides the order of the images.

    Returns:
        ``(weights, bias)``, ``(dim, num_classes)`` and ``(num_classes,)``, for unnormalised
        features: scores are ``features @ weights + bias``.
    """
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    mean = features.mean(0)
    scale = 1.0 / (features.std(0) + 1e-6)
    rng = np.random.default_rng(seed)
    batch_size = max(1, min(BATCH_SIZE, len(features) // 8))
    # The bias is the weight of a constant feature of 1.
    weights = np.zeros((features.shape[1] + 1, num_classes), np.float32)
    velocity = np.zeros_like(weights)
    for epoch in progress.watch(range(epochs), "training the linear layer", "epoch", epochs):
        rate = learning_rate * DROP ** (epoch // DROP_EVERY)
        order = rng.permutation(len(features))
        for start in range(0, len(features) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            inputs = (features[rows] - mean) * scale
            inputs = np.concatenate([inputs, np.ones((batch_size, 1), np.float32)], axis=1)
            errors = _softmax(inputs @ weights)
            errors[np.arange(batch_size), labels[rows]] -= 1.0
            velocity = MOMENTUM * velocity - rate * (inputs.T @ errors) / batch_size
            weights += velocity
    folded = weights[:-1] * scale[:, None]
    return folded, weights[-1] - mean @ folded


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
