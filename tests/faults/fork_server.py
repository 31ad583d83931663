"""Forks processes from one that has imported TensorFlow but has not run any of its operations.

An import takes seconds, but a fork takes milliseconds. TensorFlow starts threads at its first
operation, and threads do not survive a fork, so the server only imports modules.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
#: Seconds between two checks of a process.
POLL = 0.02


class ForkServer:
    """A process that imports modules and then forks on request; only one thread may use it.

    Args:
        modules: modules to import, from ``tests/``, ``tests/faults/`` or elsewhere.
        before: the beginning of the server's command line, such as ``ip netns exec NAME``.
    """

    def __init__(self, modules, before=()):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parent.parent))),
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self._server = subprocess.Popen(
            [*before, sys.executable, str(HERE / "fork_server.py"), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        if self._answer() != "ready":
            raise RuntimeError("the server of processes did not start")

    def start(self, function, *arguments, output, environment=None):
        """Runs ``module:function`` in its own process; returns a ``Forked``.

        Args:
            function: module and name of the function.
            *arguments: values that JSON can represent.
            output: file to which standard output and standard error are appended.
            environment: environment variables to set in the process.
        """
        request = {"function": function, "arguments": arguments, "output": str(output)}
        return Forked(self, self.ask(request | {"environment": environment or {}}))

    def ask(self, request):
        """Returns the server's answer to a request."""
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self):
        return json.loads(self._server.stdout.readline() or "null")

    def close(self):
        """Ends the server."""
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


class Forked:
    """A process of a ``ForkServer``, in its own session.

    Attributes:
        status: the exit code; below 0, the signal that ended the process; None while it runs.
        peak: peak resident memory in MiB, once the process has ended.
        ended_by: ``hang`` or ``memory`` if ``wait`` ended the process, otherwise empty.
    """

    def __init__(self, server, pid):
        self._server = server
        self.pid = pid
        self.began = time.monotonic()
        self.status = None
        self.peak = 0.0
        self.ended_by = ""

    def poll(self):
        """Returns whether the process has ended."""
        if self.status is None and (ended := self._server.ask({"pid": self.pid})):
            self.status, self.peak = ended["status"], ended["peak"]
        return self.status is not None

    def signal(self, number):
        """Sends a signal unless the process has ended."""
        if not self.poll():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        """Kills the process and waits for its end."""
        self.signal(signal.SIGKILL)
        while not self.poll():
            time.sleep(POLL)

    def resident(self):
        """Returns the resident memory of the process in MiB."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * resource.getpagesize() / 2**20

    def wait(self, timeout, most_memory=float("inf")):
        """Waits until the process ends; kills it after the timeout or above ``most_memory`` MiB."""
        until = time.monotonic() + timeout
        while not self.poll():
            self.wait_a_moment(until, most_memory)
        return self.status

    def wait_a_moment(self, until, most_memory):
        """Sleeps briefly; kills the process if it is past ``until`` or needs too much memory."""
        over = self.resident() > most_memory
        if over or time.monotonic() > until:
            self.ended_by = "memory" if over else "hang"
            # This signal prints the stack of each thread.
            self.signal(signal.SIGABRT)
            time.sleep(0.2)
            self.kill()
        time.sleep(POLL)


# === In the server ===


def serve(modules):
    """Imports the modules, then forks and reports until standard input ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # text that modules print is not an answer
    for name in ("conftest", *modules):
        importlib.import_module(name)

    def answer(value):
        os.write(answers, json.dumps(value).encode() + b"\n")

    answer("ready")
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            pid, status, usage = os.wait4(request["pid"], os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if pid else None
            answer({"status": code, "peak": usage.ru_maxrss / 1024} if pid else None)
        elif pid := os.fork():
            answer(pid)
        else:
            os.close(answers)
            os._exit(run(**request))


def run(function, arguments, output, environment):
    """Runs a function as a command would; returns the exit code."""
    os.setsid()
    os.environ.update(environment)
    with open(os.devnull, "rb") as nothing, open(output, "ab") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()
    code = 0
    try:
        module, name = function.split(":")
        getattr(importlib.import_module(module), name)(*arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(sys.argv[1:])
