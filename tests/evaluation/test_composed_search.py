import numpy as np
import pytest

from align_keras.evaluation.composed_search import compose


def test_queries_are_weighted_sums_of_directions():
    image, text = np.array([3.0, 0.0]), np.array([0.0, 5.0])
    np.testing.assert_allclose(compose(image, text), np.array([1.0, 2.0]) / 5**0.5)
    np.testing.assert_allclose(compose(image, text, -2.0), np.array([1.0, -2.0]) / 5**0.5)
    np.testing.assert_allclose(compose(image, text, 1.0, 0.0), [0.0, 1.0])


def test_one_image_serves_many_texts():
    rng = np.random.default_rng(0)
    image, texts = rng.normal(size=4), rng.normal(size=(3, 4))
    queries = compose(image, texts)
    assert queries.shape == (3, 4)
    for query, text in zip(queries, texts, strict=True):
        np.testing.assert_allclose(query, compose(image, text))
    assert np.linalg.norm(queries, axis=1) == pytest.approx(1.0)


def test_text_moves_a_search_from_the_image_to_what_it_says():
    # The axes are shoe, red and blue. The query is the image of a red shoe, with the text blue.
    shoes = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    shoes /= np.linalg.norm(shoes, axis=1, keepdims=True)
    red, blue = np.eye(3)[1], np.eye(3)[2]
    assert (shoes @ shoes[0]).argmax() == 0
    assert (shoes @ compose(shoes[0], blue, 1.0)).argmax() == 1
    assert (shoes @ compose(shoes[0], red, -1.0)).argmax() == 1
