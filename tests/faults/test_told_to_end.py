"""Runs that signals end, and runs whose workers die."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from ports import free_ports
from short_runs import settings_of

from align_keras.errors import InputError
from align_keras.locks import locked
from align_keras.runs.log import read_log
from align_keras.runs.workdir import open_workdir

pytestmark = pytest.mark.faults

#: Seconds until a process counts as hanging: a busy machine makes ten of one.
LIMIT = 600
OPTIONS = {"steps": 200, "batch_size": 8, "eval_every": 50, "checkpoint_every": 1_000}


class Run:
    """A run of one or several workers, each a process.

    Args:
        shards: to train and to evaluate on.
        workdir: of the run.
        workers: how many.
        **options: settings.
    """

    def __init__(self, shards, workdir, workers=1, **options):
        self.workdir = workdir
        self.folders = [workdir / (f"worker-{index}" if index else "") for index in range(workers)]
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
        options = OPTIONS | options | ({"strategy": "multi_worker"} if workers > 1 else {})
        command = [sys.executable, "tests/faults/short_pretraining.py"]
        command += [*map(",".join, shards), str(workdir), json.dumps(options)]
        self.processes = []
        for index in range(workers):
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": self.addresses}, "task": task}
            environment = {"LOGICAL_CPUS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
            environment |= {"TF_CONFIG": json.dumps(config)} if workers > 1 else {}
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes.append(process)

    def signal_at(self, step, number, worker=0):
        """Sends a signal to a worker after a step of it."""
        until = time.monotonic() + LIMIT
        while not any(line["step"] >= step for line in read_log(self.folders[worker])):
            assert time.monotonic() < until
            assert self.processes[worker].poll() is None, self.processes[worker].communicate()[0]
            time.sleep(0.002)
        self.processes[worker].send_signal(number)

    def end(self):
        """Exit codes, and the line that each worker ends with, without TensorFlow's log."""
        printed = [process.communicate(timeout=LIMIT)[0] for process in self.processes]
        lines = ["".join(re.findall(r"(?m)^pretrain\.py: .*", text)) for text in printed]
        return [process.returncode for process in self.processes], lines


def weights(folder):
    """The newest checkpoint's numbers, without clocks."""
    path = tf.train.latest_checkpoint(str(folder / "checkpoints" / "newest"))
    reader = tf.train.load_checkpoint(path)
    names = reader.get_variable_to_shape_map()
    clocks = ("seconds", "timed_pairs", "_CHECKPOINTABLE", "save_counter")
    return {name: reader.get_tensor(name) for name in names if not name.startswith(clocks)}


def check_equal(folder, expected):
    found, wanted = weights(folder), weights(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def evaluations(folder):
    """Lines of the held-out data."""
    return [line for line in read_log(folder) if line["kind"] == "eval"]


def test_a_run_that_signals_end_goes_on_to_the_same_weights(scene_shards, tmp_path):
    whole = Run(scene_shards, tmp_path / "whole")
    assert whole.end()[0] == [0]
    last, workdir = 0, tmp_path / "told"
    # At step 50 and 100 an evaluation is under way.
    for step, number in ((20, signal.SIGTERM), (50, signal.SIGHUP), (100, signal.SIGINT)):
        run = Run(scene_shards, workdir)
        run.signal_at(step, number)
        with pytest.raises(InputError, match=f"another run is using it.* {run.processes[0].pid} "):
            open_workdir(settings_of(scene_shards, workdir), str(workdir), written=())
        (code,), (line,) = run.end()
        assert code == 128 + number, line
        found = re.search(rf"--workdir={re.escape(str(workdir))} resumes at step (\d+)$", line)
        assert last < int(found[1]) < step + 30, line
        last = int(found[1])
    assert Run(scene_shards, workdir).end()[0] == [0]
    check_equal(workdir, tmp_path / "whole")
    assert evaluations(workdir) == evaluations(tmp_path / "whole")


def test_before_the_first_step_no_resuming_is_promised(scene_shards, tmp_path):
    run = Run(scene_shards, tmp_path / "run")
    until = time.monotonic() + LIMIT
    while not (tmp_path / "run" / "settings.json").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    run.processes[0].send_signal(signal.SIGINT)
    (code,), (line,) = run.end()
    assert (code, line) == (
        130,
        "pretrain.py: interrupted; there is no checkpoint yet, so the same command begins anew",
    )
    # What a killed process leaves keeps nobody away.
    lock = tmp_path / "run" / ".align_keras.lock"
    lock.touch()
    with locked(lock):
        pass


def test_all_workers_end_at_the_step_at_which_one_is_told(scene_shards, tmp_path):
    options = {"steps": 60, "eval_every": 1_000}
    assert Run(scene_shards, tmp_path / "whole", 2, **options).end()[0] == [0, 0]
    run = Run(scene_shards, tmp_path / "told", 2, **options)
    run.signal_at(10, signal.SIGTERM, worker=1)
    codes, lines = run.end()
    assert codes == [143, 143], lines
    assert lines[0].startswith("pretrain.py: another worker was told to end; the same command")
    assert lines[1].startswith("pretrain.py: terminated (SIGTERM); the same command with")
    first, second = (int(re.search(r"(\d+)$", line)[1]) for line in lines)
    assert 10 < first == second < 60
    assert Run(scene_shards, tmp_path / "told", 2, **options).end()[0] == [0, 0]
    for part in ("", "worker-1"):
        check_equal(tmp_path / "told" / part, tmp_path / "whole" / part)


@pytest.mark.parametrize("dead", [0, 1])
def test_the_others_say_which_worker_is_dead(dead, scene_shards, tmp_path):
    run = Run(scene_shards, tmp_path / "run", 2, steps=5_000, eval_every=10_000)
    run.signal_at(5, signal.SIGKILL, worker=dead)
    codes, lines = run.end()
    assert (codes[dead], codes[1 - dead]) == (-9, 1)
    assert lines[1 - dead].startswith(
        f"pretrain.py: worker {dead} ({run.addresses[dead]}) is gone; start all workers again"
    )
