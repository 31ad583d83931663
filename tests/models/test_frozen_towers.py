"""Frozen towers have no gradients and no backward pass, and their weights do not change."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import keras_internals
from align_keras.layers.batch_norm import moving_statistics
from align_keras.optimizers import make_optimizer
from align_keras.preprocessing.fields import TEXT_INPUTS

TOWERS = ("image_encoder", "text_encoder")
#: Ops of each tower's backward pass.
BACKWARD = {
    "image_encoder": {"DepthwiseConv2dNativeBackpropFilter", "FusedBatchNormGradV3"},
    "text_encoder": {"TanhGrad"},
}


def frozen_model(build, names, **options):
    model = build(dropout=0.5)
    for name in names:
        getattr(model.backbone, name).trainable = False
    optimizer = make_optimizer("adamw", 0.1, model.trainable_variables, weight_decay=0.5)
    model.compile(optimizer, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def step_of(model, batch):
    """The graph of a training step, which is not run."""
    inputs = {name: tf.constant(value) for name, value in batch.items()}
    return tf.function(model.train_step, autograph=False).get_concrete_function(inputs), inputs


@pytest.mark.parametrize(
    ("names", "options"),
    [(TOWERS[:1], {"micro_batch_size": 4}), (TOWERS[1:], {"rematerialize": True}), (TOWERS, {})],
)
def test_a_frozen_tower_stays_to_the_bit_and_has_no_slots(names, options, build_tiny, batch):
    model = frozen_model(build_tiny, names, **options)
    frozen = [weight for name in names for weight in getattr(model.backbone, name).weights]
    trained = model.trainable_variables
    before = [variable.numpy() for variable in (*frozen, *trained)]
    step, inputs = step_of(model, batch)
    step(inputs)
    for variable, value in zip(frozen, before, strict=False):
        np.testing.assert_array_equal(variable.numpy(), value, variable.path)
    for variable, value in zip(trained, before[len(frozen) :], strict=True):
        assert np.any(variable.numpy() != value), variable.path
    # Two moments for each trained weight, and the step count and the learning rate.
    assert len(model.optimizer.variables) == 2 * len(trained) + 2
    if not options:
        found = {op.type for op in step.graph.get_operations()}
        assert not found & set.union(*BACKWARD.values())


@pytest.mark.parametrize("name", TOWERS)
def test_the_other_tower_alone_has_a_backward_pass(name, build_tiny, batch):
    step, _ = step_of(frozen_model(build_tiny, [name]), batch)
    found = {op.type for op in step.graph.get_operations()}
    for other, ops in BACKWARD.items():
        assert found & ops == (ops if other != name else set())


def test_frozen_towers_compute_as_in_inference(build_tiny, batch):
    model = frozen_model(build_tiny, TOWERS)
    inputs = {name: batch[name] for name in model.backbone.input}
    found, wanted = model.backbone(inputs, training=True), model.backbone(inputs)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_frozen_statistics_stay_to_the_bit_while_scales_learn(micro_batch_size, build_tiny, batch):
    model = frozen_model(build_tiny, [], micro_batch_size=micro_batch_size)
    tower = model.backbone.image_encoder
    tower.frozen_statistics = True
    statistics = moving_statistics(tower)
    for variable in statistics:
        variable.assign(variable + 0.1)
    before = [variable.numpy() for variable in (*statistics, *tower.trainable_variables)]
    step, inputs = step_of(model, batch)
    step(inputs)
    for variable, value in zip(statistics, before, strict=False):
        np.testing.assert_array_equal(variable.numpy(), value)
    for variable, value in zip(tower.trainable_variables, before[len(statistics) :], strict=True):
        assert np.any(variable.numpy() != value), variable.path


@pytest.mark.parametrize(
    ("names", "options"), [(TOWERS[:1], {"micro_batch_size": 4}), (TOWERS[1:], {}), (TOWERS, {})]
)
def test_features_in_place_of_a_frozen_towers_inputs_give_the_same_step(
    names, options, build_tiny, batch
):
    model = frozen_model(build_tiny, names, **options)
    backbone = model.backbone
    texts = {name: batch[name] for name in TEXT_INPUTS}
    with_features = dict(batch)
    if "image_encoder" in names:
        with_features["image_features"] = backbone.image_encoder(with_features.pop("images"))
    if "text_encoder" in names:
        with_features["text_features"] = backbone.text_encoder(texts)
        for name in TEXT_INPUTS:
            del with_features[name]
    found = []
    for inputs in (batch, with_features):
        keras.utils.set_random_seed(2)  # gives the other tower the same dropout
        for layer in keras_internals.layers_of(backbone):
            if isinstance(layer, keras.layers.Dropout):
                layer.seed_generator.state.assign([0, 1])
        results, gradients = model.compute_gradients(
            {name: tf.constant(value) for name, value in inputs.items()}
        )
        found.append([results["loss"], *gradients])
    assert any(np.any(gradient) for gradient in found[0][1:])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
