"""Freed memory stays with the process, unless the user has set it otherwise."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from align_keras.runs import memory

# Counts how often 64 MiB come from the kernel when they are repeatedly allocated and freed.
FAULTS = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
if sys.argv[2] == "keep":
    import importlib.util
    path = sys.argv[1] + "/align_keras/runs/memory.py"
    spec = importlib.util.spec_from_file_location("memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.keep_freed_memory()
np.ones(1 << 24, "f4")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(1 << 24, "f4")
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    command = [sys.executable, "-c", FAULTS, str(ROOT), how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    assert faults("keep") < 0.2 * faults("leave")


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_settings_of_the_user_stay(name, monkeypatch):
    monkeypatch.setenv(name, "")
    assert not memory.keep_freed_memory()
