import numpy as np
import pytest

from align_keras.evaluation import zero_shot


def test_prompts_are_filled_class_by_class():
    filled = zero_shot.fill_prompts(["cat", "dog"], ["a {}", "{}!"])
    assert filled == ["a cat", "cat!", "a dog", "dog!"]
    with pytest.raises(ValueError, match="--prompts: no {} for the class name in 'a cat'"):
        zero_shot.fill_prompts(["cat"], ["a cat"])


def test_class_embeddings_average_then_normalise():
    prompts = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8]])
    classes = zero_shot.class_embeddings(prompts, 2)
    np.testing.assert_allclose(classes, [[2**-0.5, 2**-0.5], [0.6, 0.8]])


def test_accuracy_on_a_matrix_whose_answer_shows():
    images = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    labels = [0, 1, 1]
    assert zero_shot.top_k_accuracy(images, np.eye(3), labels) == pytest.approx(1 / 3)
    assert zero_shot.top_k_accuracy(images, np.eye(3), labels, k=2) == 1.0
    assert zero_shot.top_k_accuracy(images * np.nan, np.eye(3), labels) == 0.0
