import types

import numpy as np
import pytest
import tensorflow as tf
from replica_run import gather_both_ways

from align_keras import distribution


@pytest.mark.parametrize("counts", [(3, 3), (0, 2)])
def test_both_forms_give_the_same_bits_and_gradients(counts, mirrored):
    """Shares have equal or unequal sizes; int64 values exceed the precision of floats."""
    expected, found = gather_both_ways(mirrored, counts)
    assert found.keys() == set(distribution.GATHERINGS)
    for form, values in found.items():
        np.testing.assert_array_equal(values["rows"], [expected["rows"]] * 2, err_msg=form)
        np.testing.assert_array_equal(values["ids"], [expected["ids"]] * 2, err_msg=form)
        gradients = np.concatenate(values["gradients"])
        np.testing.assert_array_equal(gradients, expected["gradients"], err_msg=form)


def test_a_nan_stays_in_its_row(mirrored):
    def gather():
        replica, _ = distribution.replica_place()
        value = tf.where(tf.equal(replica, 0), float("nan"), 1.0)
        return distribution.gather_replicas(tf.reshape(value, [1]), "all_reduce")

    first, second = mirrored.experimental_local_results(
        tf.function(lambda: mirrored.run(gather), autograph=False)()
    )
    np.testing.assert_array_equal(first, [np.nan, 1.0])
    np.testing.assert_array_equal(second, [np.nan, 1.0])


@pytest.mark.parametrize(
    ("kinds", "form"),
    [
        (["GPU", "GPU"], "all_reduce"),
        (["CPU", "CPU"], "all_gather"),
        (["TPU", "TPU"], "all_gather"),
    ],
)
def test_the_devices_choose_the_form(kinds, form):
    devices = [f"/job:worker/replica:0/task:1/device:{kind}:{i}" for i, kind in enumerate(kinds)]
    extended = types.SimpleNamespace(worker_devices=devices)
    assert distribution.form_of_gathering(types.SimpleNamespace(extended=extended)) == form


def test_the_form_is_taken_from_the_strategy(mirrored, monkeypatch):
    counts = []

    def gather():
        counts.append(distribution.gather_replicas(tf.ones([2, 3])).shape[0])

    for form in distribution.GATHERINGS:
        monkeypatch.setattr(distribution.replicas, "form_of_gathering", lambda _, form=form: form)
        tf.function(lambda: mirrored.run(gather), autograph=False).get_concrete_function()
    # With a ring, the number of gathered rows is unknown while tracing; with a sum, it is known.
    assert counts == [None, None, 4, 4]
