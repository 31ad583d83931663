import contextlib

import keras
import numpy as np
import pytest

from align_keras import build_backbone, presets

# Weights of both towers and projections, the paper's 100k vocabulary (8k for the quickstart).
PARAMETERS = {
    "align_l2_large": {"image": 468_299_476, "text": 404_779_008, "all": 874_488_884},
    "align_b7_base": {"image": 62_449_040, "text": 161_906_688, "all": 224_847_888},
    "align_b3_mini": {"image": 10_187_560, "text": 28_776_448, "all": 39_374_888},
    "align_nano_tiny": {"image": 1_257_088, "text": 1_424_128, "all": 2_705_984},
}


@contextlib.contextmanager
def no_memory():
    """Variables made inside have a shape and no value: L2 would take gigabytes."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    # Keras would make up for it at the next occasion.
    keras.utils.clear_session()


def build_without_memory(preset):
    with no_memory():
        return build_backbone(preset)


def test_every_preset_has_its_count():
    assert PARAMETERS.keys() == presets.PRESETS.keys()


@pytest.mark.parametrize("preset", PARAMETERS)
def test_parameter_counts(preset):
    backbone = build_without_memory(preset)
    counts = {
        "image": backbone.image_encoder.count_params(),
        "text": backbone.text_encoder.count_params(),
        "all": backbone.count_params(),
    }
    assert counts == PARAMETERS[preset]


@pytest.mark.parametrize(("size", "name"), [("b3", "EfficientNetB3"), ("b7", "EfficientNetB7")])
def test_image_tower_counts_match_keras_applications(size, name):
    preset = {"b3": "align_b3_mini", "b7": "align_b7_base"}[size]
    with no_memory():
        reference = getattr(keras.applications, name)(include_top=False, weights=None)
    top = ("top_conv", "top_bn", "normalization")
    expected = sum(
        layer.count_params() for layer in reference.layers if not layer.name.startswith(top)
    )
    assert PARAMETERS[preset]["image"] == expected


def test_image_tower_widths_are_those_of_the_paper():
    widths = {
        preset: build_without_memory(preset).image_encoder.output_shape[-1]
        for preset in ("align_l2_large", "align_b7_base")
    }
    assert widths == {"align_l2_large": 1376, "align_b7_base": 640}


def test_projection_only_where_widths_differ():
    assert build_without_memory("align_b7_base").image_projection is None
    assert build_without_memory("align_b3_mini").image_projection is not None


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
    with pytest.raises(ValueError, match="no preset 'align_b99'; there are align_b3_mini"):
        build_backbone("align_b99")


def test_mixed_precision_keeps_embeddings_in_float32(build_tiny, batch):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        outputs = build_tiny()(batch)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {value.dtype.name for value in outputs.values()} == {"float32"}
