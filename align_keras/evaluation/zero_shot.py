"""Zero-shot classification: class names as captions, as pure functions on arrays."""

import numpy as np


def fill_prompts(class_names, prompts):
    """Puts every class name into every prompt: strings, class by class.

    Raises:
        ValueError: if a prompt has no ``{}``.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise ValueError(f"--prompts: no {{}} for the class name in {prompt!r}")
    return [prompt.replace("{}", name) for name in class_names for prompt in prompts]


def class_embeddings(prompt_embeddings, num_classes):
    """Averages each class's prompts and normalises the mean (sec. 6.3).

    Args:
        prompt_embeddings: unit norm, ``(num_classes * prompts, dim)``, class by class.
        num_classes: how many classes.

    Returns:
        Unit norm, ``(num_classes, dim)``.
    """
    means = np.reshape(prompt_embeddings, (num_classes, -1, prompt_embeddings.shape[-1])).mean(1)
    return means / np.linalg.norm(means, axis=-1, keepdims=True)


def top_k_accuracy(image_embeddings, classes, labels, k=1):
    """The fraction of images whose class is among the ``k`` most similar; ties count against.

    Args:
        image_embeddings: unit norm, ``(images, dim)``.
        classes: unit norm, ``(num_classes, dim)``.
        labels: integers, ``(images,)``.
        k: rank.
    """
    scores = image_embeddings @ classes.T
    labels = np.asarray(labels)
    own = scores[np.arange(len(labels)), labels]
    # Not `scores >= own`: where a model has diverged, NaN must lose too.
    rivals = np.sum(~(scores < own[:, None]), axis=1) - 1
    return float(np.mean(rivals < k))
