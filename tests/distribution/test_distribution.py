import functools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import replica_run
import tensorflow as tf
from conftest import ROOT, build_tiny_model
from ports import free_ports
from tiny_sizes import THREE_BLOCKS, TINY_EFFICIENTNET

from align_keras import Lamb, distribution
from align_keras.errors import InputError


def run_replicas(strategy, model, batch, function):
    """Runs ``function`` on each replica's half of a batch; returns a result per replica."""
    halves = [{name: value[i * 4 : i * 4 + 4] for name, value in batch.items()} for i in (0, 1)]
    shares = strategy.experimental_distribute_values_from_function(
        lambda context: {
            name: tf.constant(value)
            for name, value in halves[context.replica_id_in_sync_group].items()
        }
    )
    return tf.function(lambda: strategy.run(function, args=(shares,)), autograph=False)()


@pytest.fixture(scope="module")
def pair_of_models(mirrored):
    """The same model on one device and on two replicas, with synchronised batch norm."""
    # Module fixtures run before the fixture that seeds each test.
    keras.utils.set_random_seed(1)
    single = build_tiny_model(synchronized=True)
    with mirrored.scope():
        double = build_tiny_model(synchronized=True)
    for variable, source in zip(double.variables, single.variables, strict=True):
        variable.assign(source.numpy())
    return single, double


def test_two_replicas_give_the_loss_and_gradients_of_one(pair_of_models, mirrored, batch):
    """False negatives are masked here; the two workers below do not mask them."""
    single, double = pair_of_models
    single.compile(Lamb(0.05), mask_false_negatives=True)
    with mirrored.scope():
        double.compile(Lamb(0.05), mask_false_negatives=True)
    expected, expected_gradients = single.compute_gradients(batch)
    results, gradients = run_replicas(mirrored, double, batch, double.compute_gradients)
    for name, value in expected.items():
        mean = mirrored.reduce("MEAN", results[name], axis=None)
        np.testing.assert_allclose(mean, value, rtol=1e-5, err_msg=name)
    assert len(gradients) == len(expected_gradients)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        for replica in mirrored.experimental_local_results(gradient):
            np.testing.assert_allclose(replica, wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def one_device():
    """The results of every case of ``replica_run`` on one device."""
    results = {}
    for case in replica_run.CASES:
        results |= replica_run.run(tf.distribute.get_strategy(), case)
    return results


def run_processes(outputs, environments, cases=()):
    """Starts ``replica_run`` once for each output and waits for all of them."""
    processes = [
        subprocess.Popen(
            [sys.executable, "tests/replica_run.py", str(output), *cases],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for output, environment in zip(outputs, environments, strict=True)
    ]
    printed = [process.communicate(timeout=500)[0] for process in processes]
    assert not any(process.returncode for process in processes), printed
    results = []
    for output in outputs:
        with np.load(output) as file:
            results.append(dict(file))
    return results


def check_equal(results, expected, replicas):
    """Checks losses, gradients, clipped and averaged steps, and optimizer state."""
    assert results["replicas"] == replicas
    steps = {name for name in results if "/" in name and not name.startswith("gathered/")}
    assert steps == expected.keys()
    largest = {}
    for name, wanted in expected.items():
        largest[kind_of(name)] = max(largest.get(kind_of(name), 0.0), np.abs(wanted).max())
    for name, wanted in expected.items():
        # LAMB divides by the root of a squared gradient, so steps are less exact where this is 0.
        tolerance = 5e-3 if "/weight/" in name or "/optimizer/" in name else 1e-4
        # Values that should be 0, such as the gradient of a key's bias, are rounding errors, which
        # LAMB enlarges to steps.
        rounding = 2e-5 if "/weight/" in name or name.endswith("average") else 3e-6
        limit = tolerance * np.abs(wanted).max() + rounding * largest[kind_of(name)]
        np.testing.assert_allclose(results[name], wanted, rtol=0, atol=limit, err_msg=name)


def check_gathered(results, first, replicas):
    """Checks rows, ids and gradients of all ways to gather, bit by bit.

    Args:
        results: results of ``replica_run``.
        first: first replica of the process.
        replicas: number of replicas of the process.
    """
    expected = {name: results[f"gathered/expected/{name}"] for name in ("rows", "ids", "gradients")}
    own = slice(2 * first, 2 * (first + replicas))
    for form in distribution.GATHERINGS:
        found = {name: results[f"gathered/{form}/{name}"] for name in expected}
        for name in ("rows", "ids"):
            assert found[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(found[name], [expected[name]] * replicas, err_msg=form)
        gradients = np.concatenate(found["gradients"])
        np.testing.assert_array_equal(gradients, expected["gradients"][own], err_msg=form)


def kind_of(name):
    """``case/optimizer/.../first_moment`` -> ``case/optimizer/first_moment`` and so on."""
    case, kind, path = name.split("/", 2)
    ends = ("first_moment", "second_moment", "average", "momentum", "moving_variance")
    return f"{case}/{kind}/{next((end for end in ends if path.endswith(end)), '')}"


def test_four_replicas_train_as_one_device(one_device, tmp_path):
    """The replicas gather as on GPUs; the two workers below gather as on CPUs."""
    # Only the last case, which exchanges most: tracing four replicas takes long. The two workers
    # below run all cases.
    *_, case = replica_run.CASES
    environment = {"LOGICAL_CPUS": "4", "GATHERING": "all_reduce"}
    [results] = run_processes([tmp_path / "four.npz"], [environment], [case])
    expected = {name: value for name, value in one_device.items() if name.startswith(case)}
    check_equal(results, expected, 4)
    check_gathered(results, first=0, replicas=4)


def test_two_workers_train_as_one_device(one_device, tmp_path):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    places = [{"type": "worker", "index": index} for index in range(2)]
    environments = [
        {
            "LOGICAL_CPUS": "1",
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": place}),
        }
        for place in places
    ]
    outputs = [tmp_path / f"{index}.npz" for index in range(2)]
    for index, results in enumerate(run_processes(outputs, environments)):
        check_equal(results, one_device, 2)
        check_gathered(results, first=index, replicas=1)
        # Workers exchange these to find the newest checkpoint that all of them have.
        assert results["steps"].tolist() == [-2, 1_200_000]


def test_the_steps_that_replicas_are_compared_by_move_everything(one_device):
    """Otherwise equal steps would prove nothing."""
    for case in replica_run.CASES:
        gradients = [v for k, v in one_device.items() if k.startswith(f"{case}/gradient/")]
        assert all(np.abs(gradient).max() > 0.0 for gradient in gradients[1:])


def test_batch_norm_statistics_agree_where_it_is_not_synchronised(build_tiny, mirrored, batch):
    with mirrored.scope():
        model = build_tiny(synchronized=False)
        model.compile(keras.optimizers.SGD(0.05))
        model.optimizer.build(model.trainable_variables)
    run_replicas(mirrored, model, batch, model.train_step)
    moved = 0.0
    for variable in model.backbone.non_trainable_variables:
        if "moving_mean" in variable.path:
            first, second = mirrored.experimental_local_results(variable.value)
            np.testing.assert_array_equal(first, second)
            moved += np.abs(first).sum()
    assert moved > 0.01


def test_local_negatives_would_give_another_loss(pair_of_models, mirrored, batch, monkeypatch):
    """This is why embeddings are gathered: without it, the two-replica test above would fail."""
    single, double = pair_of_models
    single.compile(Lamb(0.05), mask_false_negatives=False)
    with mirrored.scope():
        double.compile(Lamb(0.05), mask_false_negatives=False)

    def losses(model, share):
        inputs = {name: share[name] for name in model.backbone.input}
        return model.contrastive_losses(model.backbone(inputs, training=True), share)

    expected = losses(single, batch)
    monkeypatch.setattr(distribution, "gather_replicas", lambda value: value)
    monkeypatch.setattr(distribution, "replica_place", lambda: (0, 2))
    monkeypatch.setattr(distribution, "place_of_rows", lambda value: (0, 2 * value.shape[0]))
    results = run_replicas(mirrored, double, batch, functools.partial(losses, double))
    mean = mirrored.reduce("MEAN", results["loss"], axis=None)
    assert abs(float(mean) - float(expected["loss"])) > 0.1


def test_outside_replicas_nothing_is_gathered():
    value = tf.constant([1.0, 2.0])
    assert distribution.gather_replicas(value) is value
    assert distribution.sum_replicas([value])[0] is value
    assert distribution.replica_place() == (0, 1)


def test_auto_is_the_cpu_without_a_gpu():
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    for name in ("auto", "cpu"):
        assert distribution.make_strategy(name).num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown strategy 'gpu'; choose one of auto, cpu, mirrored, multi_worker, tpu"),
        ("multi_worker", "needs the variable TF_CONFIG; set TF_CONFIG on every machine"),
        ("tpu", "^no TPU answers at local; install the tpu extra .{,60}$"),
    ],
)
def test_absent_hardware_is_one_clear_line(name, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match=message) as raised:
        distribution.make_strategy(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", ["", "{", "[]", '{"cluster": {"worker": ["a:1"]}}'])
def test_broken_tf_config_is_named(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match="set TF_CONFIG"):
        distribution.make_strategy("multi_worker")


def test_mirrored_needs_more_than_one_device(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind] * (kind == "CPU"))
    with pytest.raises(InputError, match="mirrored needs a GPU, and none was found; choose cpu"):
        distribution.make_strategy("mirrored")


def test_each_replica_gets_an_equal_share(mirrored):
    assert distribution.share_of(mirrored, 40) == 20
    with pytest.raises(InputError, match="39 cannot be divided among 2 replicas; choose"):
        distribution.share_of(mirrored, 39)


def test_who_asks_again_gets_the_same_mirrored_strategy(mirrored, monkeypatch):
    """A notebook and the recipe that it calls both make the strategy."""
    devices = tf.config.list_logical_devices("CPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices * (kind == "CPU"))
    for _ in range(2):
        assert distribution.make_strategy("mirrored", "local") is mirrored


@pytest.mark.parametrize("options", [{}, {"loss_tile_rows": 3, "micro_batch_size": 4}])
def test_the_whole_step_compiles_with_xla_and_gives_the_same(options, build_tiny, batch):
    """As on a TPU, which needs static shapes and supports no ops of the host."""
    tower = TINY_EFFICIENTNET if options else THREE_BLOCKS
    plain, compiled = build_tiny(image_tower=tower), build_tiny(image_tower=tower)
    batch = {name: tf.constant(value) for name, value in batch.items()}
    for model in (plain, compiled):
        model.compile(Lamb(0.01), global_clipnorm=0.5, **options)
        model.optimizer.build(model.trainable_variables)
    for variable, source in zip(compiled.variables, plain.variables, strict=True):
        variable.assign(source.numpy())
    steps = [
        tf.function(model.train_step, autograph=False, jit_compile=model is compiled)
        for model in (plain, compiled)
    ]
    for _ in range(2):
        logs = [step(batch) for step in steps]
    for name, value in logs[0].items():
        np.testing.assert_allclose(logs[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    for variable, source in zip(compiled.variables, plain.variables, strict=True):
        np.testing.assert_allclose(
            variable.numpy(), source.numpy(), rtol=1e-3, atol=2e-4, err_msg=source.path
        )
