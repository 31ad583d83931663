import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from tiny_sizes import THREE_BLOCKS

from align_keras import ImageEncoder, Lamb, build_image_encoder, distribution, keras_internals
from align_keras.models import precision, space_to_batch

#: A tower whose images can be cut, since its stem has no padding.
CUTTABLE = THREE_BLOCKS | {"include_stem_padding": False, "stem_conv_padding": "valid"}


def make_encoder(synchronized=True):
    keras.utils.set_random_seed(2)
    backbone = keras_hub.models.EfficientNetBackbone(
        **CUTTABLE
        | {
            "stackwise_num_repeats": [2, 2],
            "stackwise_kernel_sizes": [3, 5],
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "dropout": 0.5,
        }
    )
    return ImageEncoder(backbone, synchronized_batch_norm=synchronized)


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture
def chunks_of_blocks(monkeypatch):
    """Records the number of chunks in which each block is called."""
    called, call_block = [], space_to_batch.call_block
    monkeypatch.setattr(
        space_to_batch,
        "call_block",
        lambda *args, **kwargs: called.append(kwargs["chunks"]) or call_block(*args, **kwargs),
    )
    return called


def run(encoder, images, **attributes):
    """Features, gradients and the state after a training step; the state is then reset."""
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
    encoder.frozen_statistics = False
    for variable, value in zip(state, before, strict=True):
        variable.assign(value)
    return [features, *gradients, *after]


@pytest.mark.parametrize("option", [{}, {"rematerialize": True}, {"frozen_statistics": True}])
def test_features_gradients_and_state_are_those_of_whole_images(encoder, option, chunks_of_blocks):
    images = tf.constant(np.random.default_rng(1).normal(size=(2, 33, 33, 3)), "float32")
    whole = run(encoder, images, **option | {"space_to_batch": False, "rematerialize": False})
    assert not chunks_of_blocks
    chunks = run(encoder, images, space_to_batch=True, **option)
    assert set(chunks_of_blocks) == {8}
    for found, wanted in zip(chunks, whole, strict=True):
        scale = max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("batch", "size", "chunks"),
    [
        (2, 33, 8),  # the stem has 16 columns; 16 chunks would each have an odd number
        (16, 289, 8),
        (4, 289, 24),
        (20, 289, 6),
        (64, 289, 2),
        (128, 289, 1),
        (500, 289, 1),
        (2, 35, 1),  # the stem has 17 columns
        (None, 33, 1),
    ],
)
def test_chunks_fill_the_lanes_and_have_an_even_number_of_columns(encoder, batch, size, chunks):
    stem, block = encoder._parts()[:2]
    images = keras.KerasTensor((batch, size, size, 3))
    assert space_to_batch.count_chunks(stem, block, images) == chunks


def test_blocks_without_a_depthwise_convolution_are_not_cut():
    stem, block = build_image_encoder("efficientnet_nano")._parts()[:2]
    images = keras.KerasTensor((2, 65, 65, 3))
    assert space_to_batch.count_chunks(stem, block, images) == 1


def test_only_tpus_cut_by_default_and_only_in_training(encoder, monkeypatch):
    monkeypatch.setattr(space_to_batch, "call_stem", lambda *_: pytest.fail("cut"))
    images = tf.zeros([2, 33, 33, 3])
    encoder(images, training=True)
    monkeypatch.setattr(distribution, "is_on_tpu", lambda: True)
    encoder(images, training=False)
    with pytest.raises(pytest.fail.Exception, match="cut"):
        encoder(images, training=True)


def test_bfloat16_loses_no_more_than_it_does_on_whole_images(encoder, chunks_of_blocks):
    images = tf.constant(np.random.default_rng(1).normal(size=(2, 33, 33, 3)), "float32")
    exact = run(encoder, images, space_to_batch=False)[0]
    with precision.dtype_policy("mixed_bfloat16"):
        half = make_encoder()
    for variable, source in zip(half.variables, encoder.variables, strict=True):
        variable.assign(source.numpy())
    whole = run(half, images, space_to_batch=False)[0]
    chunks = run(half, images, space_to_batch=True)[0]
    assert chunks_of_blocks
    errors = [np.abs(np.float32(one) - exact).max() for one in (whole, chunks)]
    assert 0 < errors[1] < 2 * errors[0]


def test_statistics_of_replicas_are_those_of_the_global_batch(mirrored, chunks_of_blocks):
    images = np.random.default_rng(1).normal(size=(4, 33, 33, 3)).astype("float32")
    encoders = [make_encoder()]
    with mirrored.scope():
        encoders.append(make_encoder())
    for encoder in encoders:
        for layer in keras_internals.layers_of(encoder):
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    whole = encoders[0](images, training=True)
    encoders[1].space_to_batch = True
    shares = mirrored.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(images, 2)[context.replica_id_in_sync_group])
    )
    call = tf.function(
        lambda: mirrored.run(lambda share: encoders[1](share, training=True), (shares,)),
        autograph=False,
    )
    found = mirrored.experimental_local_results(call())
    assert chunks_of_blocks
    np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-5)
    for one, other in zip(*(each.non_trainable_variables for each in encoders), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)


def test_a_step_of_micro_batches_is_that_of_whole_images(build_tiny, batch, chunks_of_blocks):
    model = build_tiny(image_tower=CUTTABLE)
    images = np.random.default_rng(1).normal(size=(len(batch["images"]), 17, 17, 3))
    found = []
    for cuts in (False, True):
        model.compile(Lamb(1e-3), micro_batch_size=4, space_to_batch=cuts)
        found.append(model.compute_gradients(batch | {"images": images.astype("float32")}))
        assert bool(chunks_of_blocks) is cuts
    (losses, gradients), (wanted_losses, wanted) = found
    assert float(losses["loss"]) == pytest.approx(float(wanted_losses["loss"]), rel=1e-5)
    for one, other in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_tower_that_cannot_is_refused(build_tiny):
    model = build_tiny()
    del model.backbone.image_encoder.space_to_batch
    with pytest.raises(ValueError, match="space_to_batch: the tower .* has no such attribute"):
        model.compile(Lamb(1e-3), space_to_batch=True)
