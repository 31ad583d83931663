import keras
import numpy as np
import pytest

from align_keras import AlignBackbone, keras_internals
from align_keras.export import folding
from align_keras.layers.batch_norm import FusedBatchNormalization


def test_every_batch_norm_is_folded_in_a_copy_alone(build_tiny, batch):
    backbone = build_tiny().backbone
    rng = np.random.default_rng(5)
    for norm in norms(backbone):
        for weight in norm.weights:
            weight.assign(rng.uniform(0.4, 1.6, weight.shape))
    before = [weight.numpy() for weight in backbone.weights]
    folded = folding.fold_batch_norm(backbone)
    assert len(norms(folded)) == len(norms(backbone)) > 0
    assert all(norm.shift_only for norm in norms(folded))
    assert not any(norm.shift_only for norm in norms(backbone))
    for weight, value in zip(backbone.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_allclose(
        folded.encode_images(batch["images"]), backbone.encode_images(batch["images"]), atol=1e-5
    )


def norms(backbone):
    layers = keras_internals.layers_of(backbone.image_encoder)
    return [layer for layer in layers if isinstance(layer, FusedBatchNormalization)]


def test_a_tower_of_another_kind_is_refused(build_tiny):
    text = build_tiny().backbone.text_encoder
    images = keras.Input((None, None, 3))
    tower = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    with pytest.raises(ValueError, match="the image tower is not an ImageEncoder, but Functional"):
        folding.fold_batch_norm(AlignBackbone(tower, text, 3))
