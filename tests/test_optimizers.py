import keras
import numpy as np
import pytest

from align_keras import Lamb, WarmupLinearDecay


def lamb_reference(weight, gradients, rate, decay, adapt):
    """Algorithm 2 of You et al., 2020, in float64."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
        if adapt:
            r = r + decay * weight
            r = r * np.linalg.norm(weight) / np.linalg.norm(r)
        weight = weight - rate * r
    return weight


@pytest.mark.parametrize(("shape", "adapt"), [((3, 4), True), ((4,), False), ((), False)])
def test_lamb_matches_its_paper(shape, adapt):
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape)
    gradients = [rng.normal(size=shape) for _ in range(4)]
    variable = keras.Variable(start, dtype="float32")
    optimizer = Lamb(0.02, weight_decay=0.3)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")])
    expected = lamb_reference(start, gradients, 0.02, 0.3, adapt)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_lamb_differs_from_the_one_of_keras():
    # Keras's applies the decay outside the trust ratio; if it changes, ours may go.
    results = []
    for optimizer in (
        Lamb(0.1, weight_decay=0.5),
        keras.optimizers.Lamb(0.1, weight_decay=0.5),
    ):
        variable = keras.Variable(np.ones((2, 2)), dtype="float32")
        optimizer.build([variable])
        optimizer.apply([keras.ops.convert_to_tensor([[1.0, -1.0], [2.0, 0.5]])])
        results.append(variable.numpy())
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_lamb_leaves_a_zero_weight_movable():
    variable = keras.Variable(np.zeros((2, 2)), dtype="float32")
    optimizer = Lamb(0.1)
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones((2, 2))])
    np.testing.assert_allclose(variable.numpy(), -0.1, rtol=1e-4)


def test_lamb_config_round_trips():
    optimizer = Lamb(WarmupLinearDecay(1e-3, 10, 100), weight_decay=0.2, epsilon=1e-5)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()


def test_schedule_warms_up_and_decays_to_zero():
    schedule = WarmupLinearDecay(peak=2.0, warmup_steps=4, total_steps=12)
    rates = [float(schedule(step)) for step in range(13)]
    np.testing.assert_allclose(
        rates, [0.5, 1.0, 1.5, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0]
    )


def test_schedule_refuses_a_warmup_beyond_the_end():
    with pytest.raises(ValueError, match="warmup_steps must be from 0 to below total_steps"):
        WarmupLinearDecay(1.0, 10, 10)
