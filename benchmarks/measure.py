"""Runs each case of a benchmark in its own process, one after another or in turns."""

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time

_KIB_PER_MIB = 1024
# As `import align_keras` does, which often comes too late here: after TensorFlow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def in_child(script, environment=None, /, **case):
    """Runs ``script`` with ``--case``; returns the dict that its ``report`` printed."""
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
    """Times calls of ``step()``; prints the smallest time, the peak memory and further facts.

    If there are several calls, the first one traces and is not timed. A single call is timed.
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


class Side:
    """A case in a process that is stopped except in its turns, so that several cases can alternate.

    Other load on the machine then affects all cases equally.
    """

    def __init__(self, script, **case):
        self.name = f"{script}, case {case}"
        self._process = subprocess.Popen(
            [sys.executable, script, "--case", json.dumps(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # a process group of its own, which can be stopped and continued
            start_new_session=True,
        )
        os.killpg(self._process.pid, signal.SIGSTOP)

    def turn(self):
        """Lets the process work for one turn; returns its items per second."""
        os.killpg(self._process.pid, signal.SIGCONT)
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: the process ended; run the case alone to see the error")
        # If the process were not stopped, it would prepare batches during the turns of the others.
        os.killpg(self._process.pid, signal.SIGSTOP)
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        os.killpg(self._process.pid, signal.SIGCONT)
        self._process.wait()


def side_by_side(script, cases, rounds):
    """Runs the cases of a benchmark in turns.

    Args:
        script: path of the benchmark; each case is a process that calls ``take_turns``.
        cases: the arguments of each case (a dict), by name.
        rounds: number of turns of each case, after a first one in which it loads and traces.

    Returns:
        For each round, a dict of the items per second by name.
    """
    # otherwise the processes would remain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    sides = {name: Side(script, **case) for name, case in cases.items()}
    try:
        return [{name: side.turn() for name, side in sides.items()} for _ in range(rounds + 1)][1:]
    finally:
        for side in sides.values():
            side.close()


def take_turns(batches, batch_size, seconds):
    """Runs in the process of a ``Side``: draws batches for some seconds at each request."""
    for _ in sys.stdin:
        next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(batches)
            count += batch_size
        print(count / (time.perf_counter() - start), flush=True)


def random_batch(pairs, image_size, sequence, pieces):
    """Returns random pixels and word pieces, in the form that a training step takes."""
    import tensorflow as tf

    token_ids = tf.random.uniform([pairs, sequence], 5, pieces, tf.int32)
    return {
        "images": tf.random.uniform([pairs, image_size, image_size, 3], -1.0, 1.0),
        "token_ids": token_ids,
        "segment_ids": tf.zeros_like(token_ids),
        "padding_mask": tf.ones_like(token_ids),
    }


def ratio(what, value, aim=None):
    """Prints a line for the table of all ratios, which ``ratios.py`` collects."""
    print(f"ratio  {what:<66}{value:>7.2f}" + (f"{aim:>7.2f}" if aim else ""), flush=True)


#: What decides TensorFlow's speed on x86, best first: flag in /proc/cpuinfo, and its usual name.
_VECTORS = (
    ("amx_tile", "AMX"), ("avx512_vnni", "AVX-512 VNNI"), ("avx_vnni", "AVX-VNNI"),
    ("avx512f", "AVX-512"), ("avx2", "AVX2"),
)  # fmt: skip


def machine():
    """Returns the name of the processor, the number of cores and the vector instructions."""
    with open("/proc/cpuinfo") as file:
        lines = [line.partition(":") for line in file]
    names = [value.strip() for name, _, value in lines if name.startswith("model name")]
    flags = {flag for name, _, value in lines if name.startswith("flags") for flag in value.split()}
    best = next((name for flag, name in _VECTORS if flag in flags), "")
    words = [names[0] if names else platform.machine(), f"{len(names)} cores", best]
    return ", ".join(filter(None, words))
