"""oneDNN, which TensorFlow leaves off on CPUs without VNNI instructions."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, platform
platform.machine = lambda: "{machine}"
import align_keras
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


def value_after_import(value, machine):
    environment = {**os.environ, "ALIGN_KERAS_IMPORT": "lazy"}
    environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
    if value is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = value
    command = [sys.executable, "-c", PROGRAM.format(machine=machine)]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("value", "machine", "expected"),
    [
        (None, "x86_64", "1"),
        (None, "AMD64", "1"),
        ("0", "x86_64", "0"),  # the user's choice
        (None, "aarch64", "None"),
        (None, "arm64", "None"),
    ],
)
def test_it_is_on_by_default_on_x86_alone(value, machine, expected):
    assert value_after_import(value, machine) == expected
