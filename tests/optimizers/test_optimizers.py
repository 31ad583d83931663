import keras
import numpy as np
import pytest

from align_keras import Lamb, LayerwiseSGD, WarmupLinearDecay, keras_internals
from align_keras.errors import InputError
from align_keras.optimizers.named import make_optimizer
from align_keras.optimizers.schedules import SCHEDULES, make_schedule


def lamb_reference(weight, gradients, rate, decay, adapt):
    """Algorithm 2 of You et al., 2020, in float64; a ``decay`` of 0 means no decay."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
        r = r + decay * weight
        if adapt:
            r = r * np.linalg.norm(weight) / np.linalg.norm(r)
        weight = weight - rate * r
    return weight


def trained(optimizer, start, gradients, name="weight"):
    """The value of a variable after one step for each gradient."""
    variable = keras.Variable(start, dtype="float32", name=name)
    if callable(optimizer):
        optimizer = optimizer([variable])
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")])
    return variable.numpy()


def steps_of(shape):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), [rng.normal(size=shape) for _ in range(4)]


@pytest.mark.parametrize(("shape", "adapt"), [((3, 4), True), ((4,), False), ((), False)])
def test_lamb_matches_its_paper(shape, adapt):
    start, gradients = steps_of(shape)
    found = trained(Lamb(0.02, weight_decay=0.3), start, gradients)
    expected = lamb_reference(start, gradients, 0.02, 0.3 if adapt else 0.0, adapt)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("decays", "adapts"), [(False, True), (True, False), (False, False)])
def test_lamb_leaves_out_what_it_is_reported(decays, adapts):
    start, gradients = steps_of((3, 4))
    optimizer = Lamb(
        0.02,
        weight_decay=0.3,
        exclude_from_decay=[] if decays else ["wei.*t$"],
        exclude_from_adaptation=["other", *([] if adapts else ["^weight"])],
    )
    expected = lamb_reference(start, gradients, 0.02, 0.3 * decays, adapts)
    np.testing.assert_allclose(trained(optimizer, start, gradients), expected, rtol=1e-5, atol=1e-6)


def sgd_reference(weight, gradients, rate, decay):
    velocity = 0.0
    for gradient in gradients:
        weight = weight - rate * decay * weight
        velocity = 0.9 * velocity - rate * gradient
        weight = weight + velocity
    return weight


def adamw_reference(weight, gradients, rate, decay):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        weight = weight - rate * decay * weight
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        weight = weight - rate * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
    return weight


def adafactor_reference(weight, gradients, rate, decay):
    """Algorithm 4 of Shazeer and Stern, 2018, for a matrix or a vector, with relative steps."""
    rows = columns = second = 0.0
    for t, g in enumerate(gradients, 1):
        weight = weight - rate * decay * weight
        size = max(1e-3, np.sqrt(np.mean(weight**2)))
        beta = 1.0 - t**-0.8
        square = g**2 + 1e-30
        if np.ndim(g) == 2:
            rows = beta * rows + (1 - beta) * square.mean(1)
            columns = beta * columns + (1 - beta) * square.mean(0)
            second = np.outer(rows / rows.mean(), columns)
        else:
            second = beta * second + (1 - beta) * square
        update = g / np.sqrt(second)
        update = update / max(1.0, np.sqrt(np.mean(update**2)))
        weight = weight - size * min(rate, t**-0.5) * update
    return weight


@pytest.mark.parametrize("shape", [(3, 4), (4,)])
@pytest.mark.parametrize("excluded", [(), ("weight",)])
@pytest.mark.parametrize(
    ("name", "reference"),
    [("sgd", sgd_reference), ("adamw", adamw_reference), ("adafactor", adafactor_reference)],
)
def test_named_optimizers_match_their_references(name, reference, shape, excluded):
    start, gradients = steps_of(shape)
    found = trained(
        lambda variables: make_optimizer(
            name, 0.02, variables, weight_decay=0.3, exclude_from_decay=excluded
        ),
        start,
        gradients,
    )
    expected = reference(start, gradients, 0.02, 0.3 if len(shape) == 2 and not excluded else 0.0)
    # Keras computes 1 - 0.999**t in float32, which loses four digits.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "setting", "message"),
    [
        (
            "rmsprop",
            {},
            "optimizer",
            "unknown optimizer 'rmsprop'; choose one of lamb, adamw, sgd, adafactor",
        ),
        ("sgd", {"exclude_from_adaptation": ["w"]}, "", "sgd has no layer adaptation"),
        ("lamb", {"exclude_from_decay": ["embed"]}, "", "'embed' matches no path of a variable"),
        ("lamb", {"exclude_from_decay": ["("]}, "", r"'\(' is not a regular expression"),
        ("lamb", {"exclude_from_adaptation": ["b"]}, "", "'b' matches no path of a variable"),
    ],
)
def test_a_wrong_optimizer_is_refused_in_one_line(name, options, setting, message):
    with pytest.raises(InputError, match=message) as raised:
        make_optimizer(name, 0.1, [keras.Variable([1.0], name="weight")], **options)
    # The setting of the error is the argument at fault.
    assert raised.value.setting == (setting or next(iter(options)))


def test_lamb_differs_from_the_one_of_keras():
    # Keras's LAMB applies the decay outside the trust ratio. If that changes, ours can be removed.
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


@pytest.mark.parametrize(
    "make",
    [
        lambda variables: Lamb(0.0),
        lambda variables: LayerwiseSGD(1.0, weight_decay=0.1),
        lambda variables: make_optimizer("sgd", 1.0, variables, weight_decay=0.1),
        lambda variables: make_optimizer("adamw", 1.0, variables, weight_decay=0.1),
    ],
)
def test_one_rule_says_what_decays_in_every_optimizer(make, monkeypatch):
    """If the rule is reversed, all optimizers follow: a vector decays, a matrix does not."""
    for module in ("lamb", "layerwise_sgd", "named"):
        rule = lambda variable, exclusions=(): len(variable.shape) == 1  # noqa: E731
        monkeypatch.setattr(f"align_keras.optimizers.{module}.is_kernel", rule)
    variables = [
        keras.Variable(np.ones((2,) * rank), dtype="float32", name=f"rank{rank}") for rank in (1, 2)
    ]
    optimizer = make(variables)
    optimizer.build(variables)
    if isinstance(optimizer, Lamb):
        assert optimizer._decays == optimizer._adapts == [True, False]
        return
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables])
    np.testing.assert_allclose(variables[0].numpy(), 0.9, rtol=1e-6)
    np.testing.assert_array_equal(variables[1].numpy(), 1.0)


@pytest.mark.parametrize("name", ["lamb", "adamw", "sgd", "adafactor"])
def test_of_the_models_own_weights_kernels_and_embeddings_decay(name, build_tiny):
    """The owning layer decides, since the biases of BERT's attention have two dimensions."""
    model = build_tiny()
    attributes = ("kernel", "embeddings", "position_embeddings")
    expected = {
        id(getattr(layer, attribute))
        for layer in keras_internals.layers_of(model)
        for attribute in attributes
        if isinstance(getattr(layer, attribute, None), keras.Variable)
    }
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    optimizer = make_optimizer(name, 0.1, variables, weight_decay=0.5)
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables])
    moved = {v.path for v in variables if np.any(v.numpy() != 1.0)}
    assert moved == {v.path for v in variables if id(v) in expected}
    assert len(moved) == 17


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


def test_schedules_follow_their_formulas():
    steps = np.arange(13)
    warmup, left = (steps + 1) / 4, (12 - steps) / 8
    after = {
        "linear": left,
        "cosine": np.where(left > 1, 1, (1 + np.cos(np.pi * (steps - 4) / 8)) / 2),
        "constant": np.ones(13),
    }
    assert after.keys() == SCHEDULES.keys()
    for name, expected in after.items():
        schedule = make_schedule(name, 2.0, 4, 12)
        copy = keras.optimizers.schedules.deserialize(
            keras.optimizers.schedules.serialize(schedule)
        )
        rates = [float(copy(step)) for step in steps]
        np.testing.assert_allclose(rates, 2 * np.minimum(warmup, expected), atol=1e-6)


def test_schedule_refuses_a_warmup_beyond_the_end():
    with pytest.raises(ValueError, match="warmup_steps must be from 0 to below total_steps"):
        WarmupLinearDecay(1.0, 10, 10)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_loaded_model_leaves_the_same_out_of_decay(name, build_tiny, batch, tmp_path):
    model = build_tiny()
    options = {"weight_decay": 0.5, "exclude_from_decay": ("embedding",)}
    model.compile(make_optimizer(name, 0.01, model.trainable_variables, **options))
    model.train_step(batch)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, copy):
        each.train_step(batch)
    for variable, wanted in zip(copy.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipnorm": 1.0}, "clipnorm: give global_clipnorm to compile"),
        ({"loss_scale_factor": 8.0}, "loss_scale_factor: wrap it in keras.optimizers.LossScale"),
        ({"gradient_accumulation_steps": 2}, "steps: give micro_batch_size to compile"),
    ],
)
def test_what_an_optimizer_would_do_wrong_is_refused(options, message, build_tiny):
    model = build_tiny()
    with pytest.raises(ValueError, match=message):
        model.compile(keras.optimizers.SGD(0.1, **options))
    assert not model.compiled
