import contextlib
import functools
import math

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from tiny_sizes import THREE_BLOCKS

from align_keras import (
    AlignBackbone,
    ImageEncoder,
    Lamb,
    build_backbone,
    build_image_encoder,
    build_text_encoder,
)
from align_keras.models import presets

# Number of weights of both towers and projections, with the paper's vocabulary of 100k word pieces
# (8k for the quickstart).
PARAMETERS = {
    "align_l2_large": 874_488_884,
    "align_b7_base": 224_847_888,
    "align_b5_base": 190_183_920,
    "align_b3_mini": 39_374_888,
    "align_nano_tiny": 2_705_984,
}
IMAGE_PARAMETERS = {
    "efficientnet_nano": 1_257_088,
    "efficientnet_b0": 3_634_844,
    "efficientnet_b1": 6_160_512,
    "efficientnet_b2": 7_267_314,
    "efficientnet_b3": 10_187_560,
    "efficientnet_b4": 16_863_832,
    "efficientnet_b5": 27_456_752,
    "efficientnet_b6": 39_623_816,
    "efficientnet_b7": 62_449_040,
    "efficientnet_l2": 468_299_476,
}
# Number of weights with 1,000 word pieces and 64 positions.
TEXT_PARAMETERS = {
    "bert_tiny": 533_248,
    "bert_mini": 3_432_448,
    "bert_small": 13_156_352,
    "bert_medium": 25_765_888,
    "bert_base": 85_874_688,
    "bert_large": 303_403_008,
}


@contextlib.contextmanager
def no_memory():
    """Variables made inside the block have a shape but no value, since L2 would need gigabytes."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    # Otherwise Keras would initialize these variables later.
    keras.utils.clear_session()


@functools.cache
def image_encoder_without_memory(name):
    with no_memory():
        return build_image_encoder(name)


@functools.cache
def text_encoder_without_memory(name):
    with no_memory():
        return build_text_encoder(name, vocabulary_size=1000)


def scaled_channels(count, width):
    rounded = max(8, int(count * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count * width else rounded


def features_of(name):
    """The width of an image tower's output, by the paper's formula."""
    size = presets.IMAGE_ENCODERS[name]
    return scaled_channels(320, size["width_coefficient"])


def efficientnet_parameters(width, depth):
    """The number of weights, by the formulas of Tan and Le (2019), up to the top convolution."""

    def channels(count):
        return scaled_channels(count, width)

    def norm(count):
        return 4 * count

    total = 27 * channels(32) + norm(channels(32))
    stages = ((1, 3, 1, 32, 16), (6, 3, 2, 16, 24), (6, 5, 2, 24, 40), (6, 3, 3, 40, 80))
    stages += ((6, 5, 3, 80, 112), (6, 5, 4, 112, 192), (6, 3, 1, 192, 320))
    for ratio, kernel, repeats, before, after in stages:
        inputs = channels(before)
        for _ in range(math.ceil(depth * repeats)):
            inner, squeezed = inputs * ratio, inputs // 4
            if ratio != 1:
                total += inputs * inner + norm(inner)
            total += kernel**2 * inner + norm(inner)
            total += inner * squeezed + squeezed + squeezed * inner + inner
            total += inner * channels(after) + norm(channels(after))
            inputs = channels(after)
    return total


def bert_parameters(layers, width, vocabulary=1000, positions=64):
    """The number of weights, by the formulas of Devlin et al. (2019), without the pooler."""
    embeddings = (vocabulary + positions + 2) * width + 2 * width
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * 4 * width * width + 5 * width + 2 * width
    return embeddings + layers * (attention + feed_forward)


def test_every_size_has_its_count():
    assert PARAMETERS.keys() == presets.PRESETS.keys()
    assert IMAGE_PARAMETERS.keys() == presets.IMAGE_ENCODERS.keys()
    assert TEXT_PARAMETERS.keys() == presets.TEXT_ENCODERS.keys()


# Building takes many seconds, and the other sizes follow the same formula.
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b3", "efficientnet_l2"])
def test_image_encoder_counts(name):
    encoder = image_encoder_without_memory(name)
    assert encoder.count_params() == IMAGE_PARAMETERS[name]
    assert encoder.output_shape == (None, features_of(name))


def test_the_nano_image_encoder_counts():
    """Its widths do not follow EfficientNet's formula."""
    encoder = image_encoder_without_memory("efficientnet_nano")
    assert encoder.count_params() == IMAGE_PARAMETERS["efficientnet_nano"]


@pytest.mark.parametrize("name", sorted(IMAGE_PARAMETERS.keys() - {"efficientnet_nano"}))
def test_image_encoder_counts_follow_the_formula(name):
    size = presets.IMAGE_ENCODERS[name]
    coefficients = size["width_coefficient"], size["depth_coefficient"]
    assert efficientnet_parameters(*coefficients) == IMAGE_PARAMETERS[name]


@pytest.mark.parametrize("name", TEXT_PARAMETERS)
def test_text_encoder_counts(name):
    count = text_encoder_without_memory(name).count_params()
    assert count == TEXT_PARAMETERS[name]
    size = presets.TEXT_ENCODERS[name]
    assert size["intermediate_dim"] == 4 * size["hidden_dim"]
    assert count == bert_parameters(size["num_layers"], size["hidden_dim"])


@pytest.mark.parametrize("preset", PARAMETERS)
def test_preset_counts(preset):
    size = presets.PRESETS[preset]
    dim, pieces, positions = (
        size[name] for name in ("projection_dim", "vocabulary_size", "sequence_length")
    )
    width = presets.TEXT_ENCODERS[size["text_encoder"]]["hidden_dim"]
    pooled = features_of(size["image_encoder"])
    if size["image_encoder"] == "efficientnet_nano":
        pooled = image_encoder_without_memory(size["image_encoder"]).output_shape[-1]
    total = IMAGE_PARAMETERS[size["image_encoder"]] + TEXT_PARAMETERS[size["text_encoder"]]
    total += (pieces - 1000 + positions - 64) * width
    total += (width + 1) * dim + (0 if pooled == dim else (pooled + 1) * dim)
    assert total == PARAMETERS[preset]


def test_a_built_preset_has_that_count():
    with no_memory():
        backbone = build_backbone("align_b3_mini")
    assert backbone.count_params() == PARAMETERS["align_b3_mini"]
    assert backbone.image_projection is not None


def test_the_image_tower_counts_as_keras_applications_does():
    with no_memory():
        reference = keras.applications.EfficientNetB3(include_top=False, weights=None)
    top = ("top_conv", "top_bn", "normalization")
    expected = sum(
        layer.count_params() for layer in reference.layers if not layer.name.startswith(top)
    )
    assert IMAGE_PARAMETERS["efficientnet_b3"] == expected


def test_image_tower_widths_are_those_of_the_paper():
    assert features_of("efficientnet_l2") == 1376
    assert features_of("efficientnet_b7") == 640


def test_no_projection_where_the_width_is_that_of_the_space(build_tiny):
    tower = build_tiny().backbone.image_encoder
    text = build_text_encoder("bert_tiny", 100)
    assert AlignBackbone(tower, text, projection_dim=16).image_projection is None
    assert AlignBackbone(tower, text, projection_dim=8).image_projection is not None


@pytest.mark.parametrize("size", [32, 33])
def test_an_unpadded_stem_is_padded_at_the_bottom_and_the_right(size):
    """As in the original at even sizes, and in Hugging Face's model at all sizes."""
    backbone = keras_hub.models.EfficientNetBackbone(**THREE_BLOCKS, include_stem_padding=False)
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype("float32")
    cut = keras.Model(backbone.input, backbone.get_layer("top_conv").input)
    padded = cut(np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0))))
    assert padded.shape[1] == size // 4
    features = ImageEncoder(backbone)(images)
    np.testing.assert_allclose(features, np.mean(padded, (1, 2)), atol=1e-6)
    with_residual = ImageEncoder(backbone)
    assert with_residual.has_first_block_residuals
    without = ImageEncoder(backbone, first_block_residuals=False)
    assert not without.has_first_block_residuals
    assert np.abs(without(images) - features).max() > 1e-3


def test_embeddings_have_unit_norm_and_match_the_single_towers(build_tiny, batch):
    backbone = build_tiny().backbone
    inputs = {name: batch[name] for name in backbone.input}
    outputs = backbone.predict(inputs, verbose=0)
    for name in ("image_embeddings", "text_embeddings"):
        assert outputs[name].shape == (8, 8)
        np.testing.assert_allclose(np.linalg.norm(outputs[name], axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        backbone.encode_images(batch["images"]), outputs["image_embeddings"], atol=1e-5
    )
    np.testing.assert_allclose(backbone.encode_texts(batch), outputs["text_embeddings"], atol=1e-5)


def test_text_embedding_ignores_padding(build_tiny, batch):
    backbone = build_tiny().backbone
    padded = {name: batch[name].copy() for name in ("token_ids", "segment_ids", "padding_mask")}
    padded["padding_mask"][:, 6:] = 0
    before = backbone.encode_texts(padded)
    padded["token_ids"][:, 6:] = 9
    np.testing.assert_allclose(backbone.encode_texts(padded), before, atol=1e-6)


def test_unused_tops_are_no_weights(build_tiny):
    paths = [variable.path for variable in build_tiny().variables]
    assert not [path for path in paths if "top_conv" in path or "pooled_dense" in path]


def test_unknown_preset_is_named():
    with pytest.raises(ValueError, match="unknown preset 'align_b99'; choose one of align_b3_mini"):
        build_backbone("align_b99")
    with pytest.raises(
        ValueError, match="unknown image encoder 'b0'; choose one of efficientnet_b0"
    ):
        build_image_encoder("b0")
    with pytest.raises(ValueError, match="unknown text encoder 'bert'; choose one of bert_base"):
        build_text_encoder("bert")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_what_must_be_exact_in_float32(policy, build_tiny, batch):
    reference = build_tiny()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    for variable, source in zip(model.variables, reference.variables, strict=True):
        variable.assign(source.numpy())
    # The features are so large that their squares overflow float16.
    for each in (model, reference):
        each.backbone.text_projection.kernel.assign(each.backbone.text_projection.kernel * 1000)
    assert model.backbone.text_projection.compute_dtype == policy.removeprefix("mixed_")
    outputs, expected = model(batch), reference(batch)
    assert {value.dtype.name for value in outputs.values()} == {"float32"}
    for name in ("image_embeddings", "text_embeddings"):
        np.testing.assert_allclose(np.linalg.norm(outputs[name], axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(outputs[name], expected[name], atol=0.05)
    similarity = outputs["image_embeddings"] @ tf.transpose(outputs["text_embeddings"])
    # In half precision, the division by the temperature would be off by 1e-3.
    np.testing.assert_allclose(outputs["logits"], similarity / 0.2, rtol=1e-6, atol=1e-6)
    if policy == "mixed_float16":
        return  # its gradients are scaled: tests/models/test_loss_scaling.py
    for each in (model, reference):
        each.compile(Lamb(1e-3))
    results, gradients = model.compute_gradients(batch)
    assert {value.dtype.name for value in results.values()} == {"float32"}
    assert float(results["loss"]) == pytest.approx(
        float(reference.compute_gradients(batch)[0]["loss"]), abs=0.1
    )
    assert all(np.isfinite(gradient).all() for gradient in gradients)
