"""Runs on a remote file system that are killed at a write end with the same result.

``ram://`` exists in a single process, so kills are simulated: from some write on, every call fails,
including calls that would clean up.
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

#: Calls that create, move or remove files.
CALLS = ("copy_from", "write_bytes", "replace", "unlink", "mkdir")
#: Number of runs, each of which is killed twice: one for 50 kills (``make test-faults KILLS=...``).
RUNS = max(1, int(os.environ.get("KILLS") or 100) // 50)


class KilledError(BaseException):
    """Simulates the end of the process."""


@pytest.fixture
def kills(monkeypatch):
    """Counts the calls; all calls after number ``at`` fail."""
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
            leases._held.clear()  # a run that resumes late may end before the second kill
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
