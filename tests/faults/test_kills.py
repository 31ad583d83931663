"""Commands that are killed at random moments and run again leave the same files as without."""

import itertools
import os
import signal
import time

import numpy as np
import pytest
from command_runs import LIMIT, assert_same, left_by, undisturbed
from harness import SEED
from tables import add_row

pytestmark = pytest.mark.faults

#: Total number of kills (``make test-faults KILLS=...``), and the share of each command. Commands
#: that train take ten times as long as the others.
KILLS = int(os.environ.get("KILLS") or 100)
SHARES = {
    "pretrain": 0.1,
    "finetune_retrieval": 0.06,
    "finetune_classification": 0.1,
    "index": 0.3,
    "prepare_data": 0.44,
}
#: Calls of each command at which it can be killed; at others, the test would wait forever.
CALLS = ("a replacement", "a renaming", "a removal")
CALLS_OF_TRAINING = ("a step", "a checkpoint", *CALLS)
CALLS_OF = {
    "pretrain": ("the best checkpoint", *CALLS_OF_TRAINING),
    "finetune_retrieval": ("the best checkpoint", *CALLS_OF_TRAINING),
    "finetune_classification": CALLS_OF_TRAINING,
    "index": CALLS,
    "prepare_data": CALLS,
}


def run(server, name, material, workdir, moment=None, after=float("inf")):
    """Runs a command, which may be killed after some seconds or at a call; returns its status."""
    output = workdir.with_suffix(".txt")
    process = server.start("commands:run", name, str(material), str(workdir), moment, output=output)
    until = process.began + min(after, LIMIT)
    while not process.poll() and time.monotonic() < until:
        time.sleep(0.005)
    if process.status is None:
        process.kill()
        assert after < LIMIT, f"{name} hangs: {output}"
    return process.status


def draw_moment(rng, name, seconds):
    """Draws the next kill, at a time or within a call; returns arguments of ``run``."""
    if rng.uniform() < 0.5:
        return {"after": rng.uniform(0, seconds)}
    calls = CALLS_OF[name]
    call = calls[rng.integers(len(calls))]
    # The delay is about the time in which a checkpoint is written.
    moment = {"call": call, "number": int(rng.integers(1, 4)), "delay": rng.uniform(0, 0.05)}
    return {"moment": moment}


@pytest.mark.parametrize("name", SHARES)
def test_killed_and_run_again_it_leaves_the_same(name, server, material, tmp_path, record_property):
    rng = np.random.default_rng([SEED, list(SHARES).index(name)])
    began, wanted = time.monotonic(), round(KILLS * SHARES[name])
    expected, seconds = undisturbed(server, name, material)
    assert len(expected) > 5
    kills = {"at a time": 0, "in a call": 0}
    lives = 0
    for life in itertools.count():
        workdir, died, statuses = tmp_path / f"life{life}", True, []
        while died and sum(kills.values()) < wanted:
            moment = draw_moment(rng, name, seconds)
            status = run(server, name, material, workdir, **moment)
            assert status in (0, -signal.SIGKILL), tail(workdir, moment)
            died = status != 0
            statuses.append((status, moment))
            kills["at a time" if "after" in moment else "in a call"] += died
        if died:
            assert run(server, name, material, workdir) == 0, tail(workdir, {})
        lives += 1
        print(workdir.name, statuses)  # shown if the test fails
        assert_same(expected, left_by(server, workdir))
        leftovers = [path for path in workdir.rglob("*") if "partial" in path.name]
        assert not leftovers
        if sum(kills.values()) >= wanted:
            break
    add_row(
        record_property,
        "kills",
        command=name,
        **kills,
        runs=lives,
        result="bit-equal",
        seconds=round(time.monotonic() - began),
        seed=SEED,
    )


def tail(workdir, moment):
    """The message of a failure: the moment, the seed and the last lines of the command."""
    lines = workdir.with_suffix(".txt").read_text(errors="replace").splitlines()
    return "\n".join([f"seed {SEED}, after a kill at {moment}:", *lines[-15:]])
