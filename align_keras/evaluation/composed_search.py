"""Image + text and image - text queries (paper, sec. 7), as a pure function on arrays."""

import numpy as np


def compose(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    text_weight: float = 2.0,
    image_weight: float = 1.0,
) -> np.ndarray:
    """The embeddings of queries such as "this image, but ...".

    Args:
        image_embeddings: ``(queries, dim)``, or ``(dim,)`` for the same image in every query.
        text_embeddings: ``(queries, dim)``, or ``(dim,)``.
        text_weight: the paper uses 2. A negative weight subtracts the text from the image.
        image_weight: 1 in the paper.

    Returns:
        Both embeddings, normalised, weighted, summed and normalised again: ``(queries, dim)`` or
        ``(dim,)``. Images are ranked by their similarity to the result.
    """
    return _normalised(
        image_weight * _normalised(image_embeddings) + text_weight * _normalised(text_embeddings)
    )


def _normalised(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
