"""LiteRT computes the same embeddings as TensorFlow."""

import sys

import keras
import numpy as np
import pytest

from align_keras.errors import InputError
from align_keras.evaluation.features import EmbedsOnce

CAPTIONS = ["a red ring", "two blue squares beside a green ring", "a ring", "rings"]


@pytest.fixture(scope="module")
def crops(preprocessor):
    size = preprocessor.image_size
    return np.random.default_rng(0).integers(0, 256, (5, size, size, 3)).astype("uint8")


@pytest.fixture
def in_tensorflow(tiny_model):
    """The model, which is reset to TensorFlow after the test."""
    tiny_model.use_runtime("tensorflow")
    yield tiny_model
    tiny_model.use_runtime("tensorflow")


def embed(model, crops):
    return {
        "images": model.encode_images(crops, 2, cropped=True),
        "features": model.encode_image_features(crops, 2, cropped=True),
        "texts": model.encode_texts(CAPTIONS, 3),
        "floats": model.encode_images(model.preprocessor.scale(crops[:1])),
        "of_a_suite": EmbedsOnce(model).encode_images(crops, 3),
    }


def test_litert_embeds_as_tensorflow_does(in_tensorflow, crops, monkeypatch):
    wanted = embed(in_tensorflow, crops)
    in_tensorflow.use_runtime("litert")
    backbone = in_tensorflow.backbone
    found = embed(in_tensorflow, crops)
    for name, values in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)
    # Converted towers are reused, and TensorFlow's towers are not called.
    monkeypatch.setattr(backbone.image_encoder, "call", None)
    monkeypatch.setattr(backbone.text_encoder, "call", None)
    assert in_tensorflow.encode_images(crops[:1], cropped=True).shape == (
        1,
        backbone.projection_dim,
    )
    assert in_tensorflow.encode_texts([], 3).shape == (0, backbone.projection_dim)
    assert in_tensorflow.encode_texts("a ring").shape == (1, backbone.projection_dim)


def test_litert_keeps_the_weights_of_its_conversion(in_tensorflow, crops):
    in_tensorflow.use_runtime("litert")
    before = in_tensorflow.encode_texts(CAPTIONS)
    kernel = in_tensorflow.backbone.text_projection.kernel
    kept = kernel.numpy()
    try:
        kernel.assign(kept * np.linspace(0.1, 1, kept.shape[1], dtype="float32"))
        np.testing.assert_array_equal(in_tensorflow.encode_texts(CAPTIONS), before)
        in_tensorflow.use_runtime("litert")
        assert np.abs(in_tensorflow.encode_texts(CAPTIONS) - before).max() > 1e-2
        in_tensorflow.compile("sgd")
        in_tensorflow.make_train_function(force=True)
        assert in_tensorflow._litert is None
    finally:
        kernel.assign(kept)


def test_a_runtime_that_cannot_be_used_is_refused(in_tensorflow, monkeypatch):
    with pytest.raises(InputError, match="unknown runtime 'onnx'; give tensorflow or litert"):
        in_tensorflow.use_runtime("onnx")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r"pip install 'align-keras\[litert\]'"):
        in_tensorflow.use_runtime("litert")


def test_litert_needs_float32(in_tensorflow, tmp_path):
    in_tensorflow.save_to_preset(tmp_path / "preset")
    half = type(in_tensorflow).from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    with pytest.raises(
        InputError, match="LiteRT needs float32, but the model computes in bfloat16"
    ):
        half.use_runtime("litert")
    assert keras.config.dtype_policy().name == "float32"
