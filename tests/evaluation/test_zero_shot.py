import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from align_keras.evaluation import zero_shot


def test_prompts_are_filled_class_by_class():
    filled = zero_shot.fill_prompts(["cat", "dog"], ["a {}", "{}!"])
    assert filled == ["a cat", "cat!", "a dog", "dog!"]
    with pytest.raises(ValueError, match="^no {} for the class name in 'a cat'"):
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


def test_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 7))
    labels = rng.integers(0, 6, 200)  # the last class has no images
    metrics, chance = zero_shot.classification_metrics(scores, labels)
    predictions = scores.argmax(axis=1)
    assert metrics["top_1"] == sklearn_metrics.accuracy_score(labels, predictions)
    assert metrics["top_5"] == sklearn_metrics.top_k_accuracy_score(
        labels, scores, k=5, labels=range(7)
    )
    recalls = sklearn_metrics.recall_score(labels, predictions, labels=range(6), average="macro")
    assert metrics["mean_per_class"] == pytest.approx(recalls)
    np.testing.assert_array_equal(
        zero_shot.confusion_matrix(predictions, labels, 7),
        sklearn_metrics.confusion_matrix(labels, predictions, labels=range(7)),
    )
    assert chance == {"top_1": 1 / 7, "top_5": 5 / 7, "mean_per_class": 1 / 7}
