"""Runs commands as processes of a ``ForkServer``: their data and their output."""

import atexit
import functools
import json
import time

from fork_server import ForkServer
from harness import MODULES, SEED

#: Seconds after which a command counts as hanging; on a busy machine, a second can become ten.
LIMIT = 600


@functools.cache
def shared_server():
    """Returns the server that all tests of this process share."""
    others = ("commands", "digests", "lost_run", "harness", "planted_families")
    server = ForkServer([*others, *MODULES])
    atexit.register(server.close)
    return server


def shared_material(server, tmp_path_factory):
    """Returns a folder with the data of ``commands``, made once for all tests of this process."""
    folder = tmp_path_factory.getbasetemp() / "material"
    if not folder.exists():
        folder.mkdir()
        output = folder / "output.txt"
        process = server.start("commands:make_material", str(folder), output=output)
        assert process.wait(LIMIT) == 0, output.read_text()
    return folder


@functools.cache
def undisturbed(server, name, material):
    """Returns the digest and the seconds of an undisturbed run, which is made only once."""
    workdir = material.with_name(f"undisturbed-{name}")
    output = workdir.with_suffix(".txt")
    began = time.monotonic()
    process = server.start("commands:run", name, str(material), str(workdir), output=output)
    assert process.wait(LIMIT) == 0, output.read_text(errors="replace")
    seconds = time.monotonic() - began
    return left_by(server, workdir), seconds


def left_by(server, workdir):
    """Returns a digest of the files that a finished command left."""
    output = workdir.with_suffix(".json")
    printed = workdir.with_suffix(".digest.txt")
    process = server.start("digests:digest", str(workdir), str(output), output=printed)
    assert process.wait(LIMIT) == 0, printed.read_text()
    return json.loads(output.read_text())


def assert_same(expected, found):
    """Asserts that two digests are equal."""
    differs = [key for key in {*expected, *found} if expected.get(key) != found.get(key)]
    assert not differs, f"seed {SEED}: {sorted(differs)[:20]}"
