"""Two workers of one run, each a process of a ``ForkServer``."""

import json
import time

from command_runs import LIMIT


class Workers:
    """Starts the same command as worker 0 and worker 1, and watches both.

    Args:
        servers: that of each worker.
        material: folder of the data.
        workdir: of the run.
        addresses: ``host:port`` of each.
        moment: of ``commands.run``, for worker 1 alone.
        variables: of the environment of worker 1 alone.
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
        """Waits until so many steps are in the log of worker 0."""
        log, until = self.workdir / "log.jsonl", time.monotonic() + LIMIT
        before = self.steps(log)
        while self.steps(log) < before + steps:
            assert time.monotonic() < until, self.printed()
            assert not any(process.poll() for process in self.processes), self.printed()
            time.sleep(0.02)

    def steps(self, log):
        """Lines of the log."""
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def wait(self):
        """The statuses of both, which must end in time."""
        return [process.wait(LIMIT) for process in self.processes]

    def last_line(self, place):
        """The line that a worker ended with; TensorFlow may log after it."""
        lines = self.outputs[place].read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.startswith("pretrain.py: ")), "")

    def printed(self):
        """The last lines of both, for a failure."""
        return "\n---\n".join(path.read_text(errors="replace")[-1500:] for path in self.outputs)
