import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from tiny_sizes import THREE_BLOCKS

from align_keras import ImageEncoder
from align_keras.models import space_to_batch


@pytest.fixture(scope="module")
def encoder():
    backbone = keras_hub.models.EfficientNetBackbone(
        **THREE_BLOCKS
        | {
            "stackwise_num_repeats": [2, 2],
            "stackwise_kernel_sizes": [3, 5],
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "dropout": 0.5,
            "include_stem_padding": False,
            "stem_conv_padding": "valid",
        }
    )
    return ImageEncoder(backbone)


def run(encoder, images, **attributes):
    """Features, gradients and the state after a training step, which is set back."""
    state = encoder.non_trainable_variables
    before = [variable.numpy() for variable in state]
    for name, value in attributes.items():
        setattr(encoder, name, value)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = encoder(images, training=True)
        weights = np.random.default_rng(0).normal(size=features.shape).astype("float32")
        loss = tf.reduce_sum(features * weights)
    variables = [variable.value for variable in encoder.trainable_variables]
    gradients = tape.gradient(loss, [images, *variables])
    after = [variable.numpy() for variable in state]
    encoder.space_to_batch, encoder.rematerialize = None, False
    for variable, value in zip(state, before, strict=True):
        variable.assign(value)
    return [features, *gradients, *after]


@pytest.mark.parametrize("rematerialize", [False, True])
def test_features_gradients_and_state_are_those_of_whole_images(
    encoder, rematerialize, monkeypatch
):
    called, call_block = [], space_to_batch.call_block
    monkeypatch.setattr(
        space_to_batch,
        "call_block",
        lambda *args, **kwargs: called.append(kwargs["chunks"]) or call_block(*args, **kwargs),
    )
    images = tf.constant(np.random.default_rng(1).normal(size=(2, 33, 33, 3)), "float32")
    whole = run(encoder, images, space_to_batch=False)
    assert not called
    chunks = run(encoder, images, space_to_batch=True, rematerialize=rematerialize)
    assert set(called) == {8}
    for found, wanted in zip(chunks, whole, strict=True):
        scale = max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, atol=1e-5 * scale)
