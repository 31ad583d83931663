"""Files that are written whole or not at all, and JSON that is checked when it is read."""

import json


def write_whole(path, text):
    """Writes a file so that it is never seen half-written."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def read_json(path, kind):
    """Reads a JSON file of a run; ValueError, which names it, if it holds no ``kind``."""
    try:
        value = json.loads(path.read_text())
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise ValueError(f"{path}: damaged; restore it, or give another --workdir")
    return value
