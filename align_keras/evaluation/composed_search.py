"""Image + text and image - text queries (paper, sec. 7), as a pure function on arrays."""

import numpy as np


def compose(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    text_weight: float = 2.0,
    image_weight: float = 1.0,
) -> np.ndarray:
    """The embedding of "this image, but ..." queries.

    Args:
        image_embeddings: ``(queries, dim)``, or ``(dim,)`` for the same image in every query.
        text_embeddings: ``(queries, dim)``, or ``(dim,)``.
        text_weight: the paper scales the text by 2; below 0 what the text says is taken away
            from the image.
        image_weight: 1 in the paper.

    Returns:
        Both normalised, weighted and summed, then of unit norm, ``(queries, dim)`` or ``(dim,)``:
        similarities to it rank images as a search does.
    """
    return _normalised(
        image_weight * _normalised(image_embeddings) + text_weight * _normalised(text_embeddings)
    )


def _normalised(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
