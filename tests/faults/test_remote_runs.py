"""Runs on a file system of TensorFlow's, killed at a write, go on as if nothing had been.

``ram://`` is in one process, so a kill is played: from some write on, every call fails, also those
that would clear up.
"""

import os

import numpy as np
import pytest
from harness import SEED
from short_runs import settings_of
from tables import add_row

from align_keras import leases, uploads
from align_keras.remote_path import RemotePath
from align_keras.runs.presets import load_model
from align_keras.runs.pretraining import pretrain
from align_keras.runs.verifying import verify

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("tiny_preset")]

#: Calls by which files come, change places and go.
CALLS = ("copy_from", "write_bytes", "replace", "unlink", "mkdir")
#: ``make test-faults KILLS=...``: of a hundred, two runs are killed twice each.
RUNS = max(1, int(os.environ.get("KILLS") or 100) // 50)


class KilledError(BaseException):
    """The process is no more."""


@pytest.fixture
def kills(monkeypatch):
    """Counts the calls; from the one of a number on, they fail."""
    state = {"calls": 0, "at": float("inf")}
    monkeypatch.setattr(leases, "RENEWED_EVERY", 1e9)
    monkeypatch.setattr(leases, "LEFT_AFTER", 0.1)
    for name in CALLS:
        original = getattr(RemotePath, name)

        def call(self, *arguments, original=original, **options):
            state["calls"] += 1
            if state["calls"] > state["at"]:
                raise KilledError(f"{original.__name__} {self}")
            return original(self, *arguments, **options)

        monkeypatch.setattr(RemotePath, name, call)
    return state


def weights(workdir):
    return [variable.numpy() for variable in load_model(str(workdir)).weights]


def test_a_killed_run_goes_on_to_the_same_weights(
    kills, scene_shards, tmp_path, record_property, capsys
):
    pretrain(settings_of(scene_shards, tmp_path / "local"))
    expected = weights(tmp_path / "local")
    pretrain(settings_of(scene_shards, "ram://kills/undisturbed"))
    number, rng = kills["calls"], np.random.default_rng(SEED)
    resumed, killed = [], 0
    for run in range(RUNS):
        workdir = RemotePath(f"ram://kills/{run}")
        # The run is killed twice, the second time after it has resumed.
        for share in rng.uniform(0, (1.0, 0.5)):
            kills.update(calls=0, at=int(share * number))
            try:
                pretrain(settings_of(scene_shards, workdir))
            except KilledError:
                killed += 1
            leases._held.clear()  # a run that resumes late may end before the second
        kills.update(calls=0, at=float("inf"))
        metrics = pretrain(settings_of(scene_shards, workdir))
        resumed.append(metrics["resumed_at_step"])
        for one, other in zip(expected, weights(workdir), strict=True):
            np.testing.assert_array_equal(one, other)
        found = verify(str(workdir))
        assert not [fault for own in found for fault in own.faults]
        left = uploads.files_below(workdir)
        assert not [name for name in left if "lock" in name or "partial" in name]
    add_row(record_property, "runs on ram://", kills=killed, calls=number, resumed_at=resumed)
