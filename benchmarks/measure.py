"""Runs cases of a benchmark in processes of their own, one after another or side by side."""

import json
import os
import platform
import resource
import signal
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


class Side:
    """A case in a process that lives on, stopped except in its turns, so that several take them.

    What else the machine does meanwhile then falls on all of them alike.
    """

    def __init__(self, script, **case):
        self.name = f"{script}, case {case}"
        self._process = subprocess.Popen(
            [sys.executable, script, "--case", json.dumps(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a group of processes of its own, to stop and to continue
        )
        os.killpg(self._process.pid, signal.SIGSTOP)

    def turn(self):
        """Lets it work for one turn; returns the items per second of it."""
        os.killpg(self._process.pid, signal.SIGCONT)
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: it ended; run it alone to see why")
        # By itself it would continue making batches ahead, in the others' turns.
        os.killpg(self._process.pid, signal.SIGSTOP)
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        os.killpg(self._process.pid, signal.SIGCONT)
        self._process.wait()


def side_by_side(script, cases, rounds):
    """Lets cases of a benchmark take turns.

    Args:
        script: its path; each case is a process that calls ``take_turns``.
        cases: dicts by name.
        rounds: turns of each, after one in which it loads and traces.

    Returns:
        For each round a dict of the items per second by name.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # else they would stay behind
    sides = {name: Side(script, **case) for name, case in cases.items()}
    try:
        return [{name: side.turn() for name, side in sides.items()} for _ in range(rounds + 1)][1:]
    finally:
        for side in sides.values():
            side.close()


def take_turns(batches, batch_size, seconds):
    """In a ``Side``'s process: draws batches for some seconds whenever asked, until told to end."""
    for _ in sys.stdin:
        next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(batches)
            count += batch_size
        print(count / (time.perf_counter() - start), flush=True)


def random_batch(pairs, image_size, sequence, pieces):
    """Pairs of random pixels and word pieces, as a training step takes them."""
    import tensorflow as tf

    token_ids = tf.random.uniform([pairs, sequence], 5, pieces, tf.int32)
    return {
        "images": tf.random.uniform([pairs, image_size, image_size, 3], -1.0, 1.0),
        "token_ids": token_ids,
        "segment_ids": tf.zeros_like(token_ids),
        "padding_mask": tf.ones_like(token_ids),
    }


def ratio(what, value, aim=None):
    """Prints a line of the table of all ratios, which ``ratios.py`` collects."""
    print(f"ratio  {what:<66}{value:>7.2f}" + (f"{aim:>7.2f}" if aim else ""), flush=True)


def machine():
    """What it was measured on, a line."""
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"
