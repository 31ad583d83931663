"""Options for the towers' features: the top convolution, and the mean over word pieces."""

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_SEQUENCE
from tiny_sizes import THREE_BLOCKS

from align_keras import AlignBackbone, AlignDualEncoder, ImageEncoder, TextEncoder
from align_keras.export.folding import fold_batch_norm
from align_keras.models.rates import factors_by_path


@pytest.fixture(scope="module")
def backbones():
    """An EfficientNet with moving statistics as after training, and a BERT."""
    images = keras_hub.models.EfficientNetBackbone(**THREE_BLOCKS, dropout=0.0)
    rng = np.random.default_rng(3)
    for weight in images.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    texts = keras_hub.models.BertBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        dropout=0.0,
        max_sequence_length=TINY_SEQUENCE,
    )
    return images, texts


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def captions():
    """Rows of 5, 12 and 2 word pieces."""
    mask = (np.arange(TINY_SEQUENCE) < np.array([[5], [12], [2]])).astype("int32")
    token_ids = np.random.default_rng(1).integers(1, 50, mask.shape).astype("int32") * mask
    return {"token_ids": token_ids, "segment_ids": 0 * mask, "padding_mask": mask}


def test_features_after_the_top_convolution_are_the_backbones_own(backbones, images):
    tower = ImageEncoder(backbones[0], top_convolution=True)
    wanted = np.mean(backbones[0](images), axis=(1, 2))
    np.testing.assert_allclose(tower(images), wanted, rtol=1e-5, atol=1e-6)
    assert wanted.shape[1] == backbones[0].get_layer("top_conv").filters
    with tf.GradientTape(persistent=True) as tape:
        plain = tf.reduce_sum(tower(images, training=True) ** 2)
        tower.rematerialize = True
        again = tf.reduce_sum(tower(images, training=True) ** 2)
    weights = [variable.value for variable in tower.trainable_variables]
    gradients = [tape.gradient(loss, weights) for loss in (plain, again)]
    assert len(tower.stages[-1]) > len(ImageEncoder(backbones[0]).stages[-1])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_mean_is_that_over_word_pieces_without_padding(backbones, captions):
    tower = TextEncoder(backbones[1], pooling="mean")
    states = backbones[1](captions)["sequence_output"].numpy()
    wanted = [row[:length].mean(axis=0) for row, length in zip(states, (5, 12, 2), strict=True)]
    np.testing.assert_allclose(tower(captions), wanted, rtol=1e-5, atol=1e-6)
    tower.rematerialize = True
    np.testing.assert_allclose(tower(captions, training=True), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="pooling must be 'cls' or 'mean', not 'max'"):
        TextEncoder(backbones[1], pooling="max")


def test_a_model_with_them_is_saved_folded_and_told_apart(backbones, images, captions, tmp_path):
    towers = (
        ImageEncoder(backbones[0], top_convolution=True, name="image_encoder"),
        TextEncoder(backbones[1], pooling="mean", name="text_encoder"),
    )
    model = AlignDualEncoder(AlignBackbone(*towers, projection_dim=8))
    wanted = model.backbone({"images": images, **captions})
    factors = factors_by_path(model.backbone, image=0.5, layer_decay=0.5)
    assert factors.keys() == {
        variable.path for tower in towers for variable in tower.trainable_variables
    }
    model.backbone.save_to_preset(tmp_path)
    for other in (AlignBackbone.from_preset(tmp_path), fold_batch_norm(model.backbone)):
        assert other.image_encoder.top_convolution
        assert other.text_encoder.pooling == "mean"
        found = other({"images": images, **captions})
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
