"""Two workers of one run, each in its own process of a ``ForkServer``."""

import json
import time

from command_runs import LIMIT


class Workers:
    """Starts the same command as worker 0 and as worker 1, and watches both.

    Args:
        servers: the server of each worker.
        material: folder of the data.
        workdir: directory of the run.
        addresses: ``host:port`` of each worker.
        moment: ``moment`` of ``commands.run``, for worker 1 only.
        variables: environment variables, for worker 1 only.
    """

    def __init__(self, servers, material, workdir, addresses, moment=None, **variables):
        self.workdir, self.addresses = workdir, addresses
        self.outputs = [workdir.with_name(f"{workdir.name}-{n}.txt") for n in (0, 1)]
        self.processes = []
        for place, (server, output) in enumerate(zip(servers, self.outputs, strict=True)):
            task = {"type": "worker", "index": place}
            config = {"cluster": {"worker": addresses}, "task": task}
            process = server.start(
                "commands:run",
                *("pretrain_as_worker", str(material), str(workdir), moment if place else None),
                output=output,
                environment={"TF_CONFIG": json.dumps(config)} | (variables if place else {}),
            )
            self.processes.append(process)

    def wait_for_steps(self, steps):
        """Waits until the log of worker 0 has ``steps`` more lines."""
        log, until = self.workdir / "log.jsonl", time.monotonic() + LIMIT
        before = self.steps(log)
        while self.steps(log) < before + steps:
            assert time.monotonic() < until, self.printed()
            assert not any(process.poll() for process in self.processes), self.printed()
            time.sleep(0.02)

    def steps(self, log):
        """Returns the number of lines in the log."""
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def wait(self):
        """Waits for both workers, which must end in time; returns their statuses."""
        return [process.wait(LIMIT) for process in self.processes]

    def last_line(self, place):
        """Returns the error line with which a worker ended; TensorFlow may log after it."""
        lines = self.outputs[place].read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.startswith("pretrain.py: ")), "")

    def printed(self):
        """Returns the last lines of both workers, for the message of a failed test."""
        return "\n---\n".join(path.read_text(errors="replace")[-1500:] for path in self.outputs)
