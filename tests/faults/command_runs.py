"""Commands as processes of a ``ForkServer``: their data, and what they leave."""

import json
import os

#: Seconds until a command counts as hanging: a busy machine makes ten of one.
LIMIT = 600


def make_material(server, folder):
    """The folder, with the data that ``commands`` run on."""
    output = folder / "output.txt"
    process = server.start("commands:make_material", str(folder), output=output)
    assert process.wait(LIMIT) == 0, output.read_text()
    return folder


def left_by(server, workdir):
    """A digest of what a finished command left."""
    output = workdir.with_suffix(".json")
    process = server.start("commands:digest", str(workdir), str(output), output=os.devnull)
    assert process.wait(LIMIT) == 0
    return json.loads(output.read_text())
