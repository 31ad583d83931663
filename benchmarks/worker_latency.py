"""A training step of two workers, by the delay between their hosts, beside the pod model.

    python benchmarks/worker_latency.py

Two processes of ``MultiWorkerMirroredStrategy``, a core each, in two network namespaces with a
cable between them (``cable.py``). Measured on the cable: a byte there and back, and 64 MiB one way.
The model: the exchanges of ``pod_model.py`` at the measured bandwidth, with the measured time there
and back for each hop, and for all else what a step takes beside them without a delay. It needs root
and iproute2.
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
    """In a worker's process: steps of ``align_nano_tiny``, on the clock."""
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
    """On one of two hosts: milliseconds of a byte there and back, and MB/s of a large message."""
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
    sys.exit(f"{address}: nothing listens")


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
    """Starts a worker on each host, which waits once it has traced its step."""
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
        sys.exit(f"a worker ended with {process.wait()}; run it alone to see why")
    return line


def measure_cable(hosts):
    """Measures delay and bandwidth, by ``probe``."""
    processes = start(hosts, [{"is_server": True}, {"is_server": False}])
    return [json.loads(process.communicate()[0] or "null") for process in processes][1]


def measure_step(processes):
    """Seconds of a step of two workers."""
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
    """Prints the table. The delays take turns, so that other load affects all alike."""
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
        # The step without delay gives the time outside of the exchanges.
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
    parser.add_argument("--case", help="one process of a host as JSON")
    parser.add_argument("--pairs", type=int, default=64, help="of a worker")
    parser.add_argument("--delays", type=float, nargs="+", default=[0.1, 1, 20], help="ms")
    parser.add_argument("--turns", type=int, default=5, help="of all delays; the best one counts")
    arguments = parser.parse_args()
    if arguments.case:
        case = json.loads(arguments.case)
        sys.exit(train(**case) if "pairs" in case else probe(**case))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # else hosts would stay behind
    try:
        sys.exit(main(arguments.pairs, arguments.delays, arguments.turns))
    except OSError as error:
        sys.exit(f"worker_latency.py: {error}")
