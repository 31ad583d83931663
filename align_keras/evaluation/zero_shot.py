"""Zero-shot classification with class names as captions, as pure functions on arrays."""

from collections.abc import Iterable, Sequence

import numpy as np

from align_keras.errors import InputError


def fill_prompts(class_names: Iterable[str], prompts: Sequence[str]) -> list[str]:
    """Inserts every class name into every prompt; returns strings, class by class.

    Raises:
        InputError: if a prompt has no ``{}``.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise InputError(f"no {{}} for the class name in {prompt!r}")
    return [prompt.replace("{}", name) for name in class_names for prompt in prompts]


def class_embeddings(prompt_embeddings: np.ndarray, num_classes: int) -> np.ndarray:
    """The normalised mean of each class's prompt embeddings.

    Args:
        prompt_embeddings: unit norm, ``(num_classes * prompts, dim)``, class by class.
        num_classes: number of classes.

    Returns:
        Unit norm, ``(num_classes, dim)``.
    """
    means = np.reshape(prompt_embeddings, (num_classes, -1, prompt_embeddings.shape[-1])).mean(1)
    return means / np.linalg.norm(means, axis=-1, keepdims=True)


def class_ranks(scores: np.ndarray, labels: np.ndarray | Sequence[int]) -> np.ndarray:
    """For each image, the number of other classes that score at least as high as its own.

    Args:
        scores: ``(images, num_classes)``.
        labels: integers, ``(images,)``.

    Returns:
        Integers from 0 (the best), ``(images,)``. Ties count as misses.
    """
    labels = np.asarray(labels)
    own = scores[np.arange(len(labels)), labels]
    # Not `scores >= own`: with a diverged model, NaN must lose as well.
    return np.sum(~(scores < own[:, None]), axis=1) - 1


def top_k_accuracy(
    image_embeddings: np.ndarray,
    classes: np.ndarray,
    labels: np.ndarray | Sequence[int],
    k: int = 1,
) -> float:
    """The fraction of images whose class is among the ``k`` most similar; ties are misses.

    Args:
        image_embeddings: unit norm, ``(images, dim)``.
        classes: unit norm, ``(num_classes, dim)``.
        labels: integers, ``(images,)``.
        k: rank.
    """
    return float(np.mean(class_ranks(image_embeddings @ classes.T, labels) < k))


def classification_metrics(
    scores: np.ndarray, labels: np.ndarray | Sequence[int]
) -> tuple[dict[str, float], dict[str, float]]:
    """Top-1, top-5 and mean per-class accuracy, with their chance levels.

    Args:
        scores: ``(images, num_classes)``.
        labels: integers, ``(images,)``.

    Returns:
        ``(metrics, chance)``: dicts of fractions, ``top_1``, ``top_5`` and ``mean_per_class``,
        which is the mean over the classes that have images. Chance is the accuracy for a random
        order of the classes.
    """
    labels, num_classes = np.asarray(labels), scores.shape[1]
    ranks = class_ranks(scores, labels)
    _, place, count = np.unique(labels, return_inverse=True, return_counts=True)
    own = np.bincount(place, ranks < 1) / count
    metrics = {
        "top_1": float(np.mean(ranks < 1)),
        "top_5": float(np.mean(ranks < 5)),
        "mean_per_class": float(np.mean(own)),
    }
    chance = dict.fromkeys(metrics, 1.0 / num_classes)
    return metrics, chance | {"top_5": min(1.0, 5 / num_classes)}


def confusion_matrix(
    predictions: np.ndarray | Sequence[int], labels: np.ndarray | Sequence[int], num_classes: int
) -> np.ndarray:
    """The number of images of each class (rows) predicted as each class (columns).

    Args:
        predictions: integers, ``(images,)``.
        labels: integers, ``(images,)``.
        num_classes: number of classes.

    Returns:
        Integers, ``(num_classes, num_classes)``.
    """
    matrix = np.zeros((num_classes, num_classes), int)
    np.add.at(matrix, (np.asarray(labels), np.asarray(predictions)), 1)
    return matrix


def confidence(logits: np.ndarray) -> np.ndarray:
    """The largest probability of a softmax: ``(images, num_classes)`` to ``(images,)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return 1.0 / np.exp(shifted).sum(axis=1)
