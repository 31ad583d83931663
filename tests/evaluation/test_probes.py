import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from align_keras.evaluation import probes


@pytest.fixture(scope="module")
def clouds():
    """Two samples, of 400 and 300 points, from four overlapping clouds in 12 dimensions."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 12))
    labels = rng.integers(0, 4, 700)
    points = (centres[labels] + rng.normal(size=(700, 12))) * np.logspace(-2, 2, 12) + 3
    return points[:400], labels[:400], points[400:], labels[400:]


def test_nearest_neighbours_agree_with_scikit_learn(clouds):
    train, test = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in clouds[::2])
    ranks = probes.nearest_neighbour_ranks(test, clouds[3], train, clouds[1])
    metrics, chance = probes.nearest_neighbour_recall(ranks, clouds[3], clouds[1])
    peer = KNeighborsClassifier(10, metric="cosine").fit(train, clouds[1])
    nearest = clouds[1][peer.kneighbors(test, return_distance=False)]
    for k in (1, 5, 10):
        expected = np.mean((nearest[:, :k] == clouds[3][:, None]).any(axis=1))
        assert metrics[f"knn_recall_at_{k}"] == pytest.approx(expected, abs=1e-9), k
    assert chance["knn_recall_at_1"] == pytest.approx(0.25, abs=0.02)
    with pytest.raises(ValueError, match="no training image of class 3 \\(missing for 1 in all\\)"):
        seen = clouds[1] < 3
        probes.nearest_neighbour_ranks(test, clouds[3], train[seen], clouds[1][seen])


def test_the_linear_probe_does_as_well_as_logistic_regression(clouds):
    train, train_labels, test, labels = clouds
    weights, bias = probes.fit_linear_probe(train, train_labels, 4)
    assert weights.shape == (12, 4)
    accuracy = np.mean((test @ weights + bias).argmax(axis=1) == labels)
    peer = LogisticRegression(max_iter=200)
    train, test = ((part - clouds[0].mean(0)) / clouds[0].std(0) for part in (train, test))
    expected = peer.fit(train, train_labels).score(test, labels)
    assert expected > 0.7
    assert accuracy == pytest.approx(expected, abs=0.02)


def test_the_linear_probe_is_the_same_for_the_same_seed(clouds):
    first, again, other = (
        probes.fit_linear_probe(*clouds[:2], 4, epochs=2, seed=seed)[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_class_of_one_image_and_constant_features_do_no_harm():
    features = np.ones((3, 4))
    features[2] = 2.0
    weights, bias = probes.fit_linear_probe(features, [0, 0, 1], 2)
    assert np.isfinite(weights).all()
    assert (features @ weights + bias).argmax(axis=1).tolist() == [0, 0, 1]
