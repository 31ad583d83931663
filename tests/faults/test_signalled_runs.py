"""Runs end within the grace period of a pre-emptible machine and resume at the same step."""

import re
import signal
import time

import pytest
from command_runs import LIMIT, assert_same, left_by, undisturbed
from commands import RECIPES
from harness import SEED
from tables import add_row

pytestmark = pytest.mark.faults

#: Seconds from a signal to the end of the process, which a pre-emptible machine grants.
SECONDS_TO_END = 10
#: The call at which each process of a run signals itself; every process counts from the start.
MOMENTS = {
    "pretrain": [
        ("a step", 3, signal.SIGTERM),
        ("an evaluation", 1, signal.SIGHUP),
        ("a checkpoint", 1, signal.SIGINT),
    ],
    "finetune_retrieval": [("a step", 2, signal.SIGTERM), ("an evaluation", 1, signal.SIGINT)],
    "finetune_classification": [
        ("a step", 2, signal.SIGTERM),
        ("an evaluation of classes", 1, signal.SIGHUP),
        ("a step", 1, signal.SIGINT),
        ("a checkpoint", 1, signal.SIGTERM),
    ],
}


class Run:
    """A command for one directory, which may be started repeatedly."""

    def __init__(self, server, name, material, workdir):
        self.server, self.name, self.material, self.workdir = server, name, material, workdir
        self.starts = 0

    def start(self, *moment):
        """Starts a process; returns it and the file to which it prints."""
        self.starts += 1
        output = self.workdir.with_name(f"{self.workdir.name}-{self.starts}.txt")
        call = dict(zip(("call", "number", "sent"), moment, strict=True)) if moment else None
        arguments = (self.name, str(self.material), str(self.workdir), call)
        return self.server.start("commands:run", *arguments, output=output), output

    def end(self, *moment):
        """The exit code, the command's last line, and the seconds since the signal."""
        process, output = self.start(*moment)
        status, ended = process.wait(LIMIT), time.time()
        text = output.read_text(errors="replace")
        assert not process.ended_by, text
        lines = re.findall(rf"(?m)^{RECIPES[self.name]}: .*", text)
        signalled = re.search(r"signalled at ([\d.]+)", text)
        assert bool(signalled) == bool(moment), text
        return status, lines[-1] if lines else "", ended - float(signalled[1]) if moment else 0.0


@pytest.mark.parametrize("name", MOMENTS)
def test_a_run_that_signals_end_goes_on_to_the_same(
    name, server, material, tmp_path, record_property
):
    began, (expected, _) = time.monotonic(), undisturbed(server, name, material)
    run, before, longest = Run(server, name, material, tmp_path / "run"), ("", 0), 0.0
    for moment in MOMENTS[name]:
        status, line, seconds = run.end(*moment)
        assert status == 128 + moment[-1], line
        assert seconds < SECONDS_TO_END, f"{seconds:.1f} s after {moment}"
        found = re.search(rf"--workdir={run.workdir} resumes at step (\d+)(?: of (\w+))?$", line)
        assert found, line
        # "head" comes before "full"; no step is lost.
        after = ("" if found[2] in (None, "head") else found[2], int(found[1]))
        assert after >= before, line
        before, longest = after, max(longest, seconds)
    assert run.end()[:2] == (0, "")
    assert_same(expected, left_by(server, run.workdir))
    add_row(
        record_property,
        "signals",
        command=name,
        signals=len(MOMENTS[name]),
        **{"longest, in s": f"{longest:.1f}"},
        result="bit-equal",
        seconds=round(time.monotonic() - began),
        seed=SEED,
    )


def test_before_the_first_step_no_resuming_is_promised(server, material, tmp_path):
    run = Run(server, "pretrain", material, tmp_path / "run")
    status, line, _ = run.end("the beginning", 1, signal.SIGINT)
    assert (status, line) == (
        130,
        "pretrain.py: interrupted; there is no checkpoint yet, "
        "so the same command starts from the beginning",
    )


@pytest.mark.parametrize("name", ["pretrain", "finetune_classification"])
def test_a_second_run_in_its_directory_is_refused(name, server, material, tmp_path):
    run = Run(server, name, material, tmp_path / "run")
    first, output = run.start()
    until = time.monotonic() + LIMIT
    while not (lock := run.workdir / ".align_keras.lock").exists() or not lock.read_text():
        assert time.monotonic() < until and not first.poll(), output.read_text()
        time.sleep(0.002)
    first.signal(signal.SIGSTOP)
    status, line, _ = run.end()
    assert status == 1
    assert f"{run.workdir}: another run is using it; wait for " in line, line
    assert f"process {first.pid} on " in line, line
    first.kill()
    # Files of a killed process do not block the next one.
    status, line, _ = run.end("the beginning", 1, signal.SIGTERM)
    assert (status, line.count("starts from the beginning")) == (143, 1), line
