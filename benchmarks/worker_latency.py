"""Measures a training step of two workers for several delays between their hosts.

    python benchmarks/worker_latency.py

Two processes of ``MultiWorkerMirroredStrategy``, with one core each, run in two network namespaces
with a simulated cable between them (``cable.py``). Two properties of the cable are measured: the
time of a byte to the other host and back, and the time of 64 MiB in one direction. The step is
compared with a model: the communication of ``pod_model.py`` with the measured bandwidth and, for
each hop, the measured round trip, plus the rest of the step, which is measured without delay. This
needs root and iproute2.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cable
import measure
import pod_parts
import pod_scale
from pod_model import link_seconds

PORT, ROUNDS = 23_456, 5
_PINGS, _LARGE = 20, 64 << 20


def train(pairs):
    """Trains ``align_nano_tiny`` in the process of a worker and measures its steps."""
    cores = sorted(os.sched_getaffinity(0))
    worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    os.sched_setaffinity(0, [cores[worker % len(cores)]])
    import tensorflow as tf

    from align_keras import distribution

    strategy = distribution.make_strategy("multi_worker")
    with strategy.scope():
        model, make_batch = pod_parts.make_model(loss_tile_rows=pairs)
    shares = strategy.experimental_distribute_values_from_function(lambda _: make_batch(pairs))
    step = tf.function(lambda: strategy.run(model.train_step, args=(shares,)))

    step()
    print(flush=True)
    for _ in sys.stdin:
        seconds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            step()
            model.optimizer.iterations.numpy()
            seconds.append(time.perf_counter() - start)
        print(min(seconds), flush=True)


def probe(is_server):
    """Measures the round trip of a byte in ms, and the rate of a large message in MB/s."""
    address = (cable.ADDRESSES[0], PORT)
    if is_server:
        with socket.create_server(address) as listener:
            connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(_PINGS):
                connection.sendall(connection.recv(1))
            _receive(connection, _LARGE)
            connection.sendall(b".")
        return
    connection = _connect(address)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds = []
        for _ in range(_PINGS):
            start = time.perf_counter()
            connection.sendall(b".")
            connection.recv(1)
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        connection.sendall(bytes(_LARGE))
        connection.recv(1)
        rate = _LARGE / (time.perf_counter() - start - min(seconds))
    print(json.dumps({"milliseconds": 1e3 * sorted(seconds)[_PINGS // 2], "rate": rate / 1e6}))


def _connect(address):
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(address)
        time.sleep(0.1)
    sys.exit(f"{address}: no process listens")


def _receive(connection, size):
    while size:
        size -= len(connection.recv(min(size, 1 << 20)))


def start(hosts, cases, environments=({}, {})):
    """Starts a case on each host."""
    return [
        subprocess.Popen(
            [*hosts.on(number), sys.executable, __file__, "--case", json.dumps(case)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number, (case, environment) in enumerate(zip(cases, environments, strict=True))
    ]


def start_workers(hosts, pairs):
    """Starts a worker on each host; each worker waits when it has traced its step."""
    workers = [f"{address}:{PORT + 1}" for address in cable.ADDRESSES]
    environments = [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            )
        }
        for index in (0, 1)
    ]
    processes = start(hosts, [{"pairs": pairs}] * 2, environments)
    for process in processes:
        _line(process)
    return processes


def _line(process):
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a worker ended with {process.wait()}; run it alone to see the error")
    return line


def measure_cable(hosts):
    """Measures delay and bandwidth with ``probe``."""
    processes = start(hosts, [{"is_server": True}, {"is_server": False}])
    return [json.loads(process.communicate()[0] or "null") for process in processes][1]


def measure_step(processes):
    """Returns the seconds of a step of two workers."""
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(float(_line(process)) for process in processes)


def main(pairs, delays, turns):
    """Starts the workers and prints a line for each delay."""
    tower = measure.in_child(pod_parts.__file__, part="towers", pairs=pairs, one_core=True)
    sizes = pod_scale.sizes_in(tower)
    with cable.two_hosts(0) as hosts:
        workers = start_workers(hosts, pairs)
        try:
            print_steps(hosts, workers, pairs, sizes, delays, turns)
        finally:
            for process in workers:
                process.kill()


def print_steps(hosts, workers, pairs, sizes, delays, turns):
    """Prints the table. The delays take turns, so that other load affects all of them equally."""
    found = {delay: [] for delay in (0, *delays)}
    for _ in range(turns):
        for delay, measured in found.items():
            hosts.delay(delay)
            measured.append({**measure_cable(hosts), "seconds": measure_step(workers)})
    print(f"{measure.machine()}; {pod_parts.PRESET}, {pairs} pairs a worker\n")
    print(
        f"{'delay ms':>8}{'there and back ms':>19}{'MB/s':>7}{'links s':>9}{'s modelled':>12}"
        f"{'measured':>10}{'ratio':>7}"
    )
    alone = None
    for delay, measured in found.items():
        milliseconds = min(turn["milliseconds"] for turn in measured)
        rate = max(turn["rate"] for turn in measured)
        seconds = min(turn["seconds"] for turn in measured)
        links = link_seconds(2, pairs, sizes, rate / 1e3, 1e3 * milliseconds)
        # The step without delay gives the time that is not communication.
        alone = seconds - links if alone is None else alone
        modelled = alone + links
        print(
            f"{delay:>8g}{milliseconds:>19.2f}{rate:>7,.0f}{links:>9.3f}{modelled:>12.3f}"
            f"{seconds:>10.3f}{seconds / modelled:>7.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", help="run one process of a host, given as JSON")
    parser.add_argument("--pairs", type=int, default=64, help="number of pairs of a worker")
    parser.add_argument("--delays", type=float, nargs="+", default=[0.1, 1, 20], help="ms")
    parser.add_argument(
        "--turns", type=int, default=5, help="number of turns of each delay; the best one counts"
    )
    arguments = parser.parse_args()
    if arguments.case:
        case = json.loads(arguments.case)
        sys.exit(train(**case) if "pairs" in case else probe(**case))
    # otherwise the hosts would remain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        sys.exit(main(arguments.pairs, arguments.delays, arguments.turns))
    except OSError as error:
        sys.exit(f"worker_latency.py: {error}")
