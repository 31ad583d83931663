"""Pure half precision: a model is built, trained, saved, loaded and compared with float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import (
    AlignBackbone,
    AlignDualEncoder,
    AlignImageClassifier,
    Lamb,
    keras_internals,
)
from align_keras.models import precision


@pytest.fixture(params=["bfloat16", "float16"])
def policy(request):
    return request.param


@pytest.fixture
def models(policy, build_tiny, preprocessor):
    """Two models with the same weights, in half precision and in float32."""
    options = {"synchronized": True, "preprocessor": preprocessor}
    full = build_tiny(**options)
    with precision.dtype_policy(policy):
        half = build_tiny(**options)
    for variable, source in zip(half.variables, full.variables, strict=True):
        variable.assign(source.numpy())
    return half, full


def values(model, batch):
    return {name: np.asarray(value) for name, value in model(batch).items()}


def test_a_half_precision_model_trains_as_float32(models, policy, batch):
    """One step of LAMB; batch norm's weights and the moments are float32."""
    half, full = models
    options = {"micro_batch_size": 4} if policy == "bfloat16" else {}
    for model in models:
        model.compile(Lamb(0.01), global_clipnorm=10.0, **options)
        model.optimizer.build(model.trainable_variables)
    if policy == "float16":
        half.optimizer.dynamic_scale.assign(64.0)
    before = [variable.numpy() for variable in half.trainable_variables]
    batch = {name: tf.constant(value) for name, value in batch.items()}
    logs, expected = (model.train_step(batch) for model in models)
    for name in ("loss", "loss_i2t", "loss_t2i"):
        assert float(logs[name]) == pytest.approx(float(expected[name]), rel=0.03), name
    assert float(logs["gradient_norm"]) == pytest.approx(float(expected["gradient_norm"]), rel=0.2)
    for variable, start in zip(half.trainable_variables, before, strict=True):
        if not variable.path.endswith("key/bias"):  # its gradient is 0
            assert np.any(variable.numpy() != start), variable.path
    norms = ("gamma", "beta", "moving_mean", "moving_variance")
    for layer in keras_internals.layers_of(half.backbone.image_encoder):
        if isinstance(layer, keras.layers.BatchNormalization):
            assert [weight.name for weight in layer.weights] == list(norms)
            assert {weight.dtype for weight in layer.weights} == {"float32"}
    for variable, wanted in zip(half.variables, full.variables, strict=True):
        if variable.name.startswith("moving_"):
            np.testing.assert_allclose(variable.numpy(), wanted.numpy(), rtol=0.02, atol=0.02)
    moments = [v for v in half.optimizer.variables if v.name.endswith("_moment")]
    assert {variable.dtype for variable in moments} == {"float32"}
    kernels = [v for v in half.trainable_variables if v.path.endswith("kernel")]
    assert {variable.dtype for variable in kernels} == {policy}


def test_a_half_precision_model_embeds_as_float32_and_is_saved(models, policy, batch, tmp_path):
    half, full = models
    outputs, expected = values(half, batch), values(full, batch)
    for name in ("image_embeddings", "text_embeddings"):
        np.testing.assert_allclose(outputs[name], expected[name], atol=0.05, err_msg=name)
    half.save(tmp_path / "model.keras")
    half.save_to_preset(tmp_path / "preset")
    loaded = [
        keras.models.load_model(tmp_path / "model.keras"),
        AlignDualEncoder.from_preset(tmp_path / "preset", dtype=policy),
    ]
    for model in loaded:
        for variable, wanted in zip(model.variables, half.variables, strict=True):
            assert variable.dtype == wanted.dtype, variable.path
            np.testing.assert_array_equal(variable.numpy(), wanted.numpy(), variable.path)
        for name, value in values(model, batch).items():
            np.testing.assert_array_equal(value, outputs[name], err_msg=name)


@pytest.mark.parametrize(
    ("saved", "current"), [("float32", "mixed_bfloat16"), ("mixed_bfloat16", "float32")]
)
def test_a_keras_file_computes_as_it_was_saved_under_any_global_policy(
    saved, current, build_tiny, batch, tmp_path
):
    """Otherwise images would be cast (errors of 3e-3), and towers get the global precision."""
    with precision.dtype_policy(saved):
        model = build_tiny()
        classifier = AlignImageClassifier(model.backbone.image_encoder, ["a", "b"])
        classifier.head.kernel.assign(np.random.default_rng(0).normal(size=(16, 2)))
        towers = model.backbone.image_encoder, model.backbone.text_encoder
    # The model is made under another policy, as in a program that sets the policy late.
    with precision.dtype_policy(current):
        mixed = AlignDualEncoder(AlignBackbone(*towers, 8, dtype=saved))
    for variable, source in zip(mixed.variables, model.variables, strict=True):
        variable.assign(source.numpy())
    texts = {name: batch[name] for name in mixed.backbone.text_encoder.input}
    cases = {
        "model": (model, batch),
        "mixed": (mixed, batch),
        "classifier": (classifier, batch["images"]),
        "image_encoder": (towers[0], batch["images"]),
        "text_encoder": (towers[1], texts),
    }
    for name, (part, inputs) in cases.items():
        part.save(tmp_path / f"{name}.keras")
        with precision.dtype_policy(current):
            loaded = keras.models.load_model(tmp_path / f"{name}.keras")
            found = loaded(inputs)
        assert loaded.dtype_policy.name == saved, name
        for one, wanted in zip(tf.nest.flatten(found), tf.nest.flatten(part(inputs)), strict=True):
            np.testing.assert_array_equal(one, wanted, err_msg=name)
