"""Learning-rate factors by variable, compared with explicit updates."""

import keras
import numpy as np
import pytest

from align_keras.optimizers import make_optimizer

FACTORS = {"slow_kernel": 0.25}


def variables_of(start):
    return [keras.Variable(start, dtype="float32", name=name) for name in ("slow_kernel", "kernel")]


@pytest.mark.parametrize("name", ["lamb", "adamw", "sgd", "adafactor"])
def test_a_factor_is_that_of_the_whole_step(name):
    """The factor scales the complete step, including the weight decay."""
    rng = np.random.default_rng(0)
    start, gradient = rng.normal(size=(2, 3, 4))
    variables = variables_of(start)
    optimizer = make_optimizer(name, 0.02, variables, weight_decay=0.3, factors=FACTORS)
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    optimizer.build(variables)
    optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")] * 2)
    plain = keras.Variable(start, dtype="float32", name="kernel")
    other = make_optimizer(name, 0.02, [plain], weight_decay=0.3)
    other.build([plain])
    other.apply([keras.ops.convert_to_tensor(gradient, "float32")])
    slow, whole = (variable.numpy() - start for variable in variables)
    np.testing.assert_allclose(whole, plain.numpy() - start, atol=1e-6)
    if name == "adafactor":  # its step follows the size of the decayed weight
        np.testing.assert_allclose(slow, 0.25 * whole, rtol=0.02)
    else:
        np.testing.assert_allclose(slow, 0.25 * whole, atol=1e-6)
    if name == "adamw":  # the first step of Adam is the sign of the gradient
        np.testing.assert_allclose(slow, -0.005 * (np.sign(gradient) + 0.3 * start), atol=1e-5)


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_a_variable_that_was_frozen_begins_as_at_the_first_step(name):
    rng = np.random.default_rng(0)
    start, gradient = rng.normal(size=(2, 3, 4))
    gradient = keras.ops.convert_to_tensor(gradient, "float32")
    late, early = variables_of(start)
    options = {"weight_decay": 0.3, "first_steps": {"slow_kernel": 5}}
    optimizer = make_optimizer(name, 0.02, [late, early], **options)
    optimizer.build([late, early])
    for _ in range(5):
        optimizer.apply([gradient], [early])
    np.testing.assert_array_equal(late.numpy(), start.astype("float32"))
    optimizer.apply([gradient] * 2, [late, early])
    fresh = keras.Variable(start, dtype="float32", name="kernel")
    other = make_optimizer(name, 0.02, [fresh], weight_decay=0.3)
    other.build([fresh])
    other.apply([gradient])
    np.testing.assert_allclose(late.numpy(), fresh.numpy(), atol=1e-6)


def test_factors_fall_from_the_top_of_a_tower(tiny_model):
    from align_keras.models.rates import factors_by_path

    backbone = tiny_model.backbone
    found = factors_by_path(backbone, image=0.1, text=2.0, layer_decay=0.5)
    image, text = backbone.image_encoder, backbone.text_encoder
    assert len(image.stages) == 3  # a stem and two stages
    assert len(text.stages) == 2
    for stages, factors in ((image.stages, (0.0125, 0.025, 0.05)), (text.stages, (0.5, 1.0))):
        for variables, factor in zip(stages, factors, strict=True):
            assert variables
            rates = [found.get(one.path, 1.0) for one in variables]
            assert rates == pytest.approx([factor] * len(rates))
    for tower in (image, text):
        by_stage = [id(variable) for variables in tower.stages for variable in variables]
        assert sorted(by_stage) == sorted(map(id, tower.trainable_variables))
