import numpy as np
import pytest
import tensorflow as tf
from tiny_sizes import THREE_BLOCKS

from align_keras import Lamb
from align_keras.layers import rematerialization


def gradients_and_state(model, batch, jit_compile=False, **options):
    """Losses, gradients, and the final state of dropout and batch norm, which is then reset."""
    state = model.backbone.non_trainable_variables
    before = [variable.numpy() for variable in state]
    model.compile(Lamb(1e-3), **options)
    compute = tf.function(model.compute_gradients, autograph=False, jit_compile=jit_compile)
    losses, gradients = compute({name: tf.constant(value) for name, value in batch.items()})
    after = [variable.numpy() for variable in state]
    for variable, value in zip(state, before, strict=True):
        variable.assign(value)
    changed = [np.any(a != b) for a, b in zip(after, before, strict=True)]
    return losses, gradients, after, sum(changed)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}])
def test_gradients_and_dropout_are_those_of_keeping_everything(options, build_tiny, batch):
    model = build_tiny(dropout=0.5, image_tower=THREE_BLOCKS)
    losses, gradients, state, _ = gradients_and_state(model, batch, **options)
    found = gradients_and_state(model, batch, rematerialize=True, **options)
    for name, value in losses.items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-5, err_msg=name)
    for gradient, wanted in zip(found[1], gradients, strict=True):
        assert np.abs(gradient - wanted).max() < 1e-4 * max(1.0, np.abs(wanted).max())
    for value, wanted in zip(found[2], state, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)
    assert found[3] > 10


def test_every_block_is_run_again(build_tiny, batch, monkeypatch):
    seen = []

    def count(part, inputs, **others):
        seen.append(part)
        return rematerialized(part, inputs, **others)

    rematerialized = rematerialization.rematerialized
    for module in ("image_encoder", "text_encoder"):
        monkeypatch.setattr(f"align_keras.models.{module}.rematerialized", count)
    model = build_tiny(image_tower=THREE_BLOCKS)
    model.compile(Lamb(1e-3), rematerialize=True)
    model.compute_gradients(batch)
    blocks = sum(THREE_BLOCKS["stackwise_num_repeats"])
    assert len(seen) == blocks + 1  # the last one is BERT's
    weights = {id(v) for part in seen for v in part.trainable_variables}
    tower = model.backbone.image_encoder
    stem = {id(v) for v in tower.trainable_variables if "stem" in v.path}
    assert {id(v) for v in tower.trainable_variables} - stem <= weights
    # Nothing is recomputed in inference.
    seen.clear()
    model.predict_step(batch)
    assert not seen


def test_a_tower_without_it_is_refused(build_tiny):
    model = build_tiny()
    del model.backbone.text_encoder.rematerialize
    with pytest.raises(ValueError, match="rematerialize: the tower .* has no such attribute"):
        model.compile(Lamb(1e-3), rematerialize=True)
