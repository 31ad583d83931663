"""Damaged records and lost shards, in separate processes: nothing crashes, every loss is counted.

More records: ``CASES=20000 pytest -m faults tests/faults/test_damaged_records.py``; ``SEED`` gives
others.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_runs import LIMIT, shared_server
from conftest import ROOT
from malformed import crashing, mutated
from short_runs import users_environment

from align_keras.data import records, shard_names
from align_keras.data.shard_writer import write_shard

pytestmark = pytest.mark.faults

SEED = int(os.environ.get("SEED") or 0)
RECORDS = min(int(os.environ.get("CASES") or 400), 50_000)
FOLDER = Path(__file__).parent


def run(*arguments):
    """The exit code of ``lost_run.run``, and what it printed."""
    output = Path(arguments[0]).with_suffix(".txt")
    output.write_text("")
    arguments = [str(own) if isinstance(own, Path) else own for own in arguments]
    process = shared_server().start("lost_run:run", *arguments, output=output)
    return process.wait(LIMIT), output.read_text(errors="replace")


def last_line(printed):
    """The line that the command ended with; TensorFlow may log after it."""
    assert "Traceback" not in printed, printed
    return [line for line in printed.splitlines() if line.startswith("pretrain.py: ")][-1]


def run_child(*arguments):
    return subprocess.run(
        [sys.executable, str(FOLDER / "records_child.py"), *map(str, arguments)],
        cwd=ROOT,
        env=users_environment(TF_CPP_MIN_LOG_LEVEL="3"),
        capture_output=True,
        text=True,
        timeout=1_200,
    )


def test_tensorflows_parser_crashes_where_the_pipeline_must_not(scene_shards):
    """The reason for ``pairs.parse_pairs``; if this test fails, the function can be removed."""
    record = crashing(next(records.read_frames(scene_shards[0][0])))
    code = "import sys, tensorflow as tf; tf.io.parse_single_example(bytes.fromhex(sys.argv[1]), "
    code += "{'jpg': tf.io.FixedLenFeature([], tf.string)})"
    assert subprocess.run([sys.executable, "-c", code, record.hex()], stderr=-3).returncode < 0


def test_mutated_records_pass_through_everything_that_reads_shards(scene_shards, tmp_path):
    print(f"SEED={SEED}, {RECORDS} mutated records")
    rng = np.random.default_rng(SEED)
    sound = [frame for shard in scene_shards[0] for frame in records.read_frames(shard)]
    damaged = [mutated(sound[number % len(sound)], rng) for number in range(RECORDS)]
    damaged[::97] = [crashing(sound[0])] * len(damaged[::97])
    # An intact record follows each damaged one, so that no batch is empty.
    mixed = [frame for n, own in enumerate(damaged) for frame in (own, sound[n % len(sound)])]
    shard = tmp_path / "mutated-00000.tfrecord"
    write_shard(str(shard), mixed)
    result = run_child(shard, tmp_path)
    assert result.returncode == 0, f"SEED={SEED}: {result.stderr[-3_000:]}"
    found = json.loads(result.stdout.splitlines()[-1])
    print(found)
    assert found["records"] == 2 * RECORDS
    least = RECORDS + sum(map(is_pair, damaged)) // 2
    assert RECORDS <= found["usable in inspection"] == found["valid in evaluation"]
    assert found["skipped in training"] > 0
    assert RECORDS <= found["packed"] < 2 * RECORDS
    refused = sum(not is_example(record) for record in damaged)
    assert found["reasons"]["not a tf.train.Example"] == refused > RECORDS // 10
    assert found["labelled"] == 2 * RECORDS or "its class" in found["labelled"]
    assert least <= found["captioned"] <= 2 * RECORDS - refused
    assert found["images to search"] >= len(sound)  # all intact ones, and some damaged ones


def is_example(record):
    try:
        records.parse_pair(record)
    except ValueError:
        return False
    return True


def is_pair(record):
    return is_example(record) and {"jpg", "txt"} <= records.parse_pair(record).keys()


@pytest.fixture
def shards(scene_shards, tmp_path):
    """A pattern for copies of twelve shards with ten records each."""
    (tmp_path / "data").mkdir()
    for shard in scene_shards[0]:
        shutil.copy(shard, tmp_path / "data")
        shutil.copy(shard_names.stats_path(shard), tmp_path / "data")
    return f"{tmp_path}/data/train-*.tfrecord"


@pytest.mark.parametrize(
    ("damage", "message", "step"),
    [
        ("deleted", "train-00000.tfrecord: is gone since the run opened it (and 1 more", 6),
        ("a folder", "train-00000.tfrecord: is a folder since the run opened it (and 1 more", 6),
        # After these, the last step may have used other records, so the run resumes one checkpoint
        # earlier.
        ("truncated", "train-00000.tfrecord: has 5,000 bytes, not ", 4),
        ("another shard", "train-00000.tfrecord: has ", 4),
    ],
)
def test_a_run_that_loses_shards_stops_at_a_checkpoint_and_resumes(
    damage, message, step, shards, tmp_path
):
    kept = shutil.copytree(tmp_path / "data", tmp_path / "kept")
    status, printed = run(tmp_path / "run", shards, damage, 5)
    assert status == 1, printed
    line = last_line(printed)
    assert line.startswith("pretrain.py: --train-data: ")
    assert message in line
    assert f"; restore it as it was; the same command resumes at step {step}" in line
    assert not (tmp_path / "run" / "metrics.json").exists()
    status, printed = run(tmp_path / "run", shards, "nothing", 2)
    assert status == 1
    assert "train-00000.tfrecord" in last_line(printed)
    if damage in ("truncated", "a folder"):  # resuming does not depend on the kind of damage
        return
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(kept, tmp_path / "data")
    status, printed = run(tmp_path / "run", shards, "touched", 9)
    assert status == 0, printed
    assert f"at step {step} of 12" in printed
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["skipped_pairs"] == 0


def test_a_run_stops_at_its_share_of_skipped_pairs_and_counts_the_same_when_resumed(
    shards, tmp_path
):
    shard = shards.replace("*", "00003")
    frames = list(records.read_frames(shard))
    write_shard(shard, [crashing(frames[0]), *frames[1:8], b"\xff" * 50, frames[9]])
    status, printed = run(tmp_path / "run", shards, "nothing", 2)
    assert status == 1, printed
    line = last_line(printed)
    assert "2 of 120 pairs were skipped (1.67%), more than 1.00%: " in line
    assert f"{shard} (2); write those files again or raise --max-skipped-share; the same" in line
    for workdir in ("run", "whole"):
        status, printed = run(tmp_path / workdir, shards, "nothing", 2, 0.05)
        assert status == 0, printed
        assert "skipped 4 corrupt or unreadable pairs" in printed
        metrics = json.loads((tmp_path / workdir / "metrics.json").read_text())
        assert metrics["skipped_pairs"] == 4
