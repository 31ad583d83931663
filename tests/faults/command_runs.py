"""Commands as processes of a ``ForkServer``: their data, and what they leave."""

import atexit
import functools
import json
import time

from fork_server import ForkServer
from harness import MODULES, SEED

#: Seconds until a command counts as hanging: a busy machine makes ten of one.
LIMIT = 600


@functools.cache
def shared_server():
    """The server of all tests of this process."""
    others = ("commands", "digests", "lost_run", "harness", "planted_families")
    server = ForkServer([*others, *MODULES])
    atexit.register(server.close)
    return server


def shared_material(server, tmp_path_factory):
    """A folder with the data that ``commands`` run on, made once for all tests of this process."""
    folder = tmp_path_factory.getbasetemp() / "material"
    if not folder.exists():
        folder.mkdir()
        output = folder / "output.txt"
        process = server.start("commands:make_material", str(folder), output=output)
        assert process.wait(LIMIT) == 0, output.read_text()
    return folder


@functools.cache
def undisturbed(server, name, material):
    """The digest of a command's run that nothing happens to, and its seconds; run once."""
    workdir = material.with_name(f"undisturbed-{name}")
    output = workdir.with_suffix(".txt")
    began = time.monotonic()
    process = server.start("commands:run", name, str(material), str(workdir), output=output)
    assert process.wait(LIMIT) == 0, output.read_text(errors="replace")
    seconds = time.monotonic() - began
    return left_by(server, workdir), seconds


def left_by(server, workdir):
    """A digest of what a finished command left."""
    output = workdir.with_suffix(".json")
    printed = workdir.with_suffix(".digest.txt")
    process = server.start("digests:digest", str(workdir), str(output), output=printed)
    assert process.wait(LIMIT) == 0, printed.read_text()
    return json.loads(output.read_text())


def assert_same(expected, found):
    """Compares two digests."""
    differs = [key for key in {*expected, *found} if expected.get(key) != found.get(key)]
    assert not differs, f"seed {SEED}: {sorted(differs)[:20]}"
