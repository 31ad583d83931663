"""Two workers, started like a user does: by two commands with the same flags."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from ports import free_ports
from short_runs import settings_of, users_environment

from align_keras.runs.log_lines import read_log

pytestmark = pytest.mark.faults


def test_two_workers_train_alike(scene_shards, tiny_run, tmp_path):
    settings = settings_of(scene_shards, tmp_path / "run", model=str(tiny_run)).flat()
    names = ("train_data", "eval_data", "workdir", "model", "steps", "warmup_steps", "batch_size")
    names += ("eval_every", "checkpoint_every")
    flags = [f"--{name.replace('_', '-')}={settings[name]}" for name in names]
    flags += ["--log-every=2", "--steps-per-execution=2"]
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "recipes/pretrain.py", "--strategy=multi_worker", *flags],
                cwd=ROOT,
                env=users_environment(TF_CONFIG=json.dumps(task)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (read_log(tmp_path / "run" / place) for place in ("", "worker-1"))
    assert [line["step"] for line in first] == [0, 2, 4, 4]
    assert len(first) == len(second)
    for line, other in zip(first, second, strict=True):
        for name in line.keys() - {"pairs_per_second", "kind"}:
            assert other[name] == pytest.approx(line[name], rel=1e-5), name
