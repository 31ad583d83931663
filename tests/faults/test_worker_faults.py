"""Two workers, one of which is killed or stopped; and two hosts, one of which is cut off."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_runs import LIMIT, assert_same, left_by
from conftest import ROOT
from fork_server import ForkServer
from harness import SEED
from ports import free_ports
from tables import add_row
from workers import Workers

sys.path.append(str(ROOT / "benchmarks"))
import cable

pytestmark = pytest.mark.faults

#: Seconds from a signal to the end of the process, which a pre-emptible machine grants.
SECONDS_TO_END = 10


def start_here(server, material, workdir, **of_worker_1):
    """Starts two workers on this machine."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return Workers([server] * 2, material, workdir, addresses, **of_worker_1)


def record(record_property, began, fault, result="bit-equal"):
    """Adds a row to the table of workers."""
    seconds = round(time.monotonic() - began)
    add_row(record_property, "workers", fault=fault, result=result, seconds=seconds, seed=SEED)


@pytest.fixture(scope="module")
def whole(server, material, tmp_path_factory):
    """The output of two undisturbed workers."""
    workdir = tmp_path_factory.mktemp("workers") / "whole"
    workers = start_here(server, material, workdir)
    assert workers.wait() == [0, 0], workers.printed()
    return left_by(server, workdir)


def test_a_stopped_worker_holds_the_others_up_and_all_go_on(
    whole, server, material, tmp_path, record_property
):
    rng = np.random.default_rng([SEED, 10])
    began, workers = time.monotonic(), start_here(server, material, tmp_path / "run")
    for place in (1, 0):
        workers.wait_for_steps(int(rng.integers(2, 6)))
        workers.processes[place].signal(signal.SIGSTOP)
        time.sleep(3.0)
        workers.processes[place].signal(signal.SIGCONT)
    assert workers.wait() == [0, 0], workers.printed()
    assert_same(whole, left_by(server, tmp_path / "run"))
    record(record_property, began, "each stopped for 3 s")


def test_a_killed_worker_is_named_and_the_run_resumes(
    whole, server, material, tmp_path, record_property
):
    rng = np.random.default_rng([SEED, 20])
    began, waited = time.monotonic(), []
    for place in (1, 0):
        workers = start_here(server, material, tmp_path / "run")
        workers.wait_for_steps(int(rng.integers(2, 8)))
        workers.processes[place].kill()
        killed = time.monotonic()
        statuses = workers.wait()
        waited.append(f"{time.monotonic() - killed:.0f}")
        assert statuses[place] == -signal.SIGKILL
        assert statuses[1 - place] == 1, workers.printed()
        gone = f"worker {place} ({workers.addresses[place]}) is gone"
        message = workers.last_line(1 - place)
        assert message.startswith(f"pretrain.py: {gone}; start all workers again"), message
    again = start_here(server, material, tmp_path / "run")
    assert again.wait() == [0, 0], again.printed()
    assert_same(whole, left_by(server, tmp_path / "run"))
    record(
        record_property,
        began,
        f"worker 1, then 0 killed, named after {' and '.join(waited)} s, both run again",
    )


def test_all_workers_end_at_the_step_at_which_one_is_signalled(
    whole, server, material, tmp_path, record_property
):
    began, workers = time.monotonic(), start_here(server, material, tmp_path / "run")
    workers.wait_for_steps(3)
    workers.processes[1].signal(signal.SIGTERM)
    signalled = time.monotonic()
    assert workers.wait() == [143, 143], workers.printed()
    seconds = time.monotonic() - signalled
    assert seconds < SECONDS_TO_END
    lines = [workers.last_line(place) for place in (0, 1)]
    assert lines[0].startswith("pretrain.py: another worker was asked to stop; the same command")
    assert lines[1].startswith("pretrain.py: terminated (SIGTERM); the same command with")
    first, second = (int(re.search(r"(\d+)$", line)[1]) for line in lines)
    assert 3 <= first == second < 30
    again = start_here(server, material, tmp_path / "run")
    assert again.wait() == [0, 0], again.printed()
    assert_same(whole, left_by(server, tmp_path / "run"))
    record(
        record_property,
        began,
        f"SIGTERM to worker 1, both ended after {seconds:.1f} s, both run again",
    )


def test_a_signal_does_not_wait_for_an_evaluation(
    whole, server, material, tmp_path, record_property
):
    began, moment = time.monotonic(), {"call": "an evaluation", "number": 1, "sent": signal.SIGTERM}
    workers = start_here(server, material, tmp_path / "run", moment=moment)
    assert workers.wait() == [1, 143], workers.printed()
    assert workers.last_line(1).endswith("resumes at step 20")
    gone = f"worker 1 ({workers.addresses[1]}) is gone"
    assert workers.last_line(0).startswith(f"pretrain.py: {gone}; start all workers again")
    again = start_here(server, material, tmp_path / "run")
    assert again.wait() == [0, 0], again.printed()
    assert "at step 20 of 30" in again.outputs[0].read_text()
    assert_same(whole, left_by(server, tmp_path / "run"))
    record(record_property, began, "SIGTERM to worker 1 in an evaluation, both run again")


def test_workers_with_different_settings_are_refused(server, material, tmp_path):
    workers = start_here(server, material, tmp_path / "run", LOG_EVERY="7")
    assert workers.wait() == [1, 1], workers.printed()
    for place, value in enumerate((1, 7)):
        expected = f"pretrain.py: --log-every: {value} here, but different on another worker"
        assert workers.last_line(place).startswith(expected)


# === Hosts: two network namespaces with a cable between them ===


def run_ip(*words):
    """Runs a command of iproute2; if it fails, raises an error with its message."""
    ended = subprocess.run(words, capture_output=True, text=True)
    if ended.returncode:
        raise OSError(f"{' '.join(words)}: {ended.stderr.strip()}")


@contextlib.contextmanager
def two_hosts():
    """Makes two network namespaces, 10.77.0.1 and .2; yields their names and the cable's ends."""
    names = [f"align{os.getpid()}-{n}" for n in (0, 1)]
    cables = [f"al{os.getpid()}{n}" for n in "ab"]
    try:
        for name in names:
            run_ip("ip", "netns", "add", name)
        run_ip("ip", "link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
            run_ip("ip", "link", "set", cable, "netns", name)
            inside = ("ip", "-n", name)
            run_ip(*inside, "addr", "add", f"10.77.0.{number}/24", "dev", cable)
            run_ip(*inside, "link", "set", cable, "up")
            run_ip(*inside, "link", "set", "lo", "up")
        yield names, cables
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture(scope="module")
def hosts():
    """Two hosts, the ends of their cable, and a server on each."""
    if not shutil.which("ip"):
        pytest.skip("no iproute2 here: hosts are network namespaces")
    with contextlib.ExitStack() as stack:
        try:
            names, cables = stack.enter_context(two_hosts())
        except OSError as error:
            pytest.skip(f"hosts are network namespaces, which this machine refuses: {error}")
        servers = [ForkServer(["commands"], before=("ip", "netns", "exec", n)) for n in names]
        yield names, cables, servers
        for own in servers:
            own.close()


def start_apart(hosts, material, workdir):
    """Starts a worker on each host."""
    addresses = [f"10.77.0.{number}:{23_456 + number}" for number in (1, 2)]
    return Workers(hosts[2], material, workdir, addresses)


def test_two_hosts_far_apart_train_to_the_same_weights(
    whole, server, material, tmp_path, record_property
):
    """The round trip takes 20 ms; the benchmarks' cable delays packets, as not all kernels can."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            apart = stack.enter_context(cable.two_hosts(20))
        except OSError as error:
            pytest.skip(f"hosts are network namespaces, which this machine refuses: {error}")
        servers = [ForkServer(["commands"], before=apart.on(number)) for number in (0, 1)]
        for own in servers:
            stack.callback(own.close)
        addresses = [f"{address}:23456" for address in cable.ADDRESSES]
        workers = Workers(servers, material, tmp_path / "run", addresses)
        assert workers.wait() == [0, 0], workers.printed()
    assert_same(whole, left_by(server, tmp_path / "run"))
    record(record_property, began, "two hosts, 20 ms there and back")


def test_a_host_that_is_cut_off_is_named_by_the_other(hosts, material, tmp_path, record_property):
    names, cables, _ = hosts
    began, workers = time.monotonic(), start_apart(hosts, material, tmp_path / "run")
    workers.wait_for_steps(3)
    run_ip("ip", "-n", names[1], "link", "set", cables[1], "down")
    cut = time.monotonic()
    try:
        status = workers.processes[0].wait(LIMIT)
        seconds = time.monotonic() - cut
        assert not workers.processes[0].ended_by, f"hangs for {LIMIT} s: {workers.printed()}"
        assert status != 0
        assert "worker 1" in workers.last_line(0), workers.printed()
    finally:
        run_ip("ip", "-n", names[1], "link", "set", cables[1], "up")
        for process in workers.processes:
            process.kill()
    record(record_property, began, f"worker 1 cut off, named after {seconds:.0f} s", "named")
