"""Runs a case of a benchmark in a process of its own: time, and peak memory above its inputs."""

import json
import os
import platform
import resource
import subprocess
import sys
import time

_KIB_PER_MIB = 1024


def in_child(script, environment=None, /, **case):
    """Runs ``script`` with ``--case`` and returns what its ``report`` printed, a dict."""
    result = subprocess.run(
        [sys.executable, script, "--case", json.dumps(case)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        sys.exit(f"{script}, case {case}: {result.stderr.strip().splitlines()[-1]}")
    return json.loads(result.stdout.splitlines()[-1])


def report(step, rounds, **facts):
    """Calls ``step()`` on the clock; prints the least time, the peak and further facts.

    The first of several calls, which traces, is not timed; a single one is.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if rounds > 1:
        step()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": min(seconds), "peak_mib": peak / _KIB_PER_MIB, **facts}))


def machine():
    """What it was measured on, a line."""
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"
