"""Runners with several processes write the same as one process, or are refused."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from planted import Planted

from align_keras.data import records
from align_keras.data.preparation import preparing
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError

pytest.importorskip("apache_beam", reason="needs align-keras[beam]: make test-data")
# Ignores warnings of Beam and its dependencies.
pytestmark = [pytest.mark.filterwarnings("ignore")]
_SECONDS = 60


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """A function that filters 300 planted pairs from several parts and returns the files."""
    folder = tmp_path_factory.mktemp("runners")
    planted = Planted(folder / "pairs")
    with ShardWriter(str(folder / "raw"), 60) as writer:
        for number, row in enumerate(planted.rows[:300]):
            path = planted.folder / (row["image"] or "none")
            image = path.read_bytes() if path.exists() else b""
            for caption in row["captions"]:
                writer.write(records.make_record(image, caption, f"{number:05d}"))

    def prepare(name, engine, *options):
        source = preparing.open_pairs(source=f"{folder}/raw-*.tfrecord")
        rules = planted.rules.but(frequent_ngrams=60)
        made = {"engine": engine, "beam_options": options, "shard_size": 8}
        planted.prepare(folder / name / "train", source, rules, images=False, **made)
        files = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        # The order of its lines is undefined.
        files["train-left_out.jsonl"] = sorted(files["train-left_out.jsonl"].splitlines())
        return files

    return prepare


@pytest.fixture(scope="module")
def in_one_process(prepare):
    files = prepare("one", "single_machine")
    assert sum(name.endswith(".tfrecord") for name in files) > 2
    return files


@pytest.fixture
def job_endpoint(tmp_path):
    """The address of a process with Beam's portable job service."""
    port_file = tmp_path / "port"
    module = "apache_beam.runners.portability.local_job_service_main"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--port=0", f"--port_file={port_file}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + _SECONDS
    while not (port_file.exists() and port_file.read_text()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    yield f"localhost:{port_file.read_text()}"
    process.kill()
    process.wait()


def test_several_worker_processes_write_the_same_bytes(prepare, in_one_process, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = "--direct_num_workers=2", "--direct_running_mode=multi_processing"
    assert prepare("processes", "beam", "--runner=FnApiRunner", *options) == in_one_process


def test_a_portable_job_service_writes_the_same_bytes(prepare, in_one_process, job_endpoint):
    options = f"--job_endpoint={job_endpoint}", "--environment_type=LOOPBACK"
    assert prepare("service", "beam", "--runner=PortableRunner", *options) == in_one_process


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ("apache_beam.runners.dask.dask_runner.DaskRunner", "runner for Dask mixes the outputs"),
        ("Dask", "runner for Dask mixes the outputs"),
        ("Samza", "Unexpected pipeline runner: Samza"),
    ],
)
def test_a_runner_that_cannot_run_it_is_refused(prepare, runner, message):
    with pytest.raises(InputError, match=message) as raised:
        prepare("refused", "beam", f"--runner={runner}")
    assert raised.value.setting == "beam_options"


@pytest.mark.parametrize(
    ("written", "missing"),
    [
        ({}, "train-report.json and others"),
        ({"report.json": '{"pairs_out": 9}'}, "train-left_out.jsonl"),
        ({"report.json": '{"pairs_out": 9}', "left_out.jsonl": ""}, "train-00000.tfrecord and oth"),
    ],
)
def test_a_runner_that_leaves_out_an_output_is_noticed(prepare, written, missing, monkeypatch):
    from align_keras.data.preparation import beam_engine

    def build(pipeline, preparation, output, shard_size):
        for name, text in written.items():
            Path(f"{output}-{name}").write_text(text)

    monkeypatch.setattr(beam_engine, "build", build)
    with pytest.raises(InputError, match=f"ended without writing {missing}"):
        prepare("missing", "beam", "--runner=FnApiRunner")
