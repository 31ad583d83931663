import logging
import os
import subprocess
import sys
import warnings

import pytest
from conftest import ROOT
from foreign_lines import foreign_lines
from short_runs import users_environment

from align_keras import quiet


def say(name, level, text):
    """Passes a log record to Python's handler of last resort."""
    logging.lastResort.handle(logging.LogRecord(name, level, "", 0, text, (), None))


@pytest.fixture
def printed(monkeypatch, capsys):
    """The output while a library warns and logs, and this package logs."""

    def run():
        with warnings.catch_warnings(), quiet.python_libraries():
            warnings.simplefilter("always")
            # Not `warnings.warn`, since pytest would catch the warning.
            warnings.showwarning("of Keras", UserWarning, "keras.py", 3)
            say("urllib3.connectionpool", logging.WARNING, "Retrying in 1 s")
            say("urllib3.connectionpool", logging.ERROR, "no network")
            say("align_keras.data.records", logging.WARNING, "a shard is short")
        return capsys.readouterr().err.splitlines()

    for name in ("HF_HUB_VERBOSITY", "KAGGLEHUB_VERBOSITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "warnoptions", [])
    return run


def test_only_errors_and_the_packages_own_lines_show(printed, monkeypatch):
    for level in (None, "3"):  # commands in a notebook inherit the variable
        if level is None:
            monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        else:
            monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
        assert printed() == ["no network", "a shard is short"]
        assert os.environ["HF_HUB_VERBOSITY"] == "error"
        assert logging.getLogger("tensorflow").level == logging.ERROR
    assert not isinstance(logging.lastResort, quiet._LastResort)


def test_who_asks_sees_all(printed, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    lines = printed()
    assert {"Retrying in 1 s", "no network", "a shard is short"} <= set(lines)
    assert "HF_HUB_VERBOSITY" not in os.environ


@pytest.mark.parametrize(
    "line",
    [
        "E0000 00:00:1795803845.103465    9142 util.cc:131] oneDNN supports DT_INT64 only on",
        "2026-11-27 18:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "WARNING:tensorflow:5 out of the last 5 calls to <function f> triggered tf.function retr",
        "/x/site-packages/keras/src/trainers/epoch_iterator.py:116: UserWarning: Your input ran",
        "Input file read error",
        "Thread 1: Corrupt JPEG data: premature end of data segment",
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
        "'(MaxRetryError(...))' thrown while requesting HEAD https://huggingface.co/a",
        "W1127 18:00:00.123456 1 cuda_dnn.cc:12] a",
    ],
)
def test_lines_of_others_are_known(line):
    assert foreign_lines(f"training: 3 of 5 steps\n{line}\rloading") == [line]


def test_own_lines_are_not_taken_for_others():
    own = [
        "loading TensorFlow",
        "pretrain.py: --strategy: no TPU answers at local; install the tpu extra",
        "training: 20 of 50 steps, 3.10 steps/s, 10 s left; loss=2.1 in-batch R@1 30%/28%",
        "--images: a.jpg: truncated or damaged JPEG; give JPEG, PNG, WebP, GIF or BMP",
    ]
    assert foreign_lines("\n".join(own)) == []


_ABORTED = """
import os, sys
from align_keras import progress, quiet, signals
with signals.handled("recipe.py"), progress.shown(""), quiet.c_libraries():
    print("sys", file=sys.stderr)
    progress.tell("told")
    os.write(2, b"E0000 00:00:1.5 9 util.cc:131] oneDNN supports DT_INT64 only on\\n")
    os.write(2, b"Corrupt JPEG data: premature end of data segment\\nInput file read error\\n")
    os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\n")
    os.write(2, b"F0000 00:00:1.5 9 a.cc:1] Check failed: a\\ndouble free or corruption\\n")
    os.abort()
"""


def test_c_libraries_show_why_they_end_the_process_and_nothing_else():
    result = subprocess.run(
        [sys.executable, "-c", _ABORTED],
        env=users_environment(ALIGN_KERAS_IMPORT="lazy"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == -6
    assert sorted(result.stderr.splitlines()) == [
        *("F0000 00:00:1.5 9 a.cc:1] Check failed: a", "double free or corruption", "sys", "told"),
    ]
