"""Digests of the files that a command left, by name."""

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from align_keras import checksums

#: Values that depend on the time, the process or the folder instead of the work.
_NOT_COMPARED = (
    *(
        "seconds",
        "train_pairs_per_second",
        "pairs_per_second",
        "images_per_second",
        "resumed_at_step",
    ),
    *("date_saved", "workdir"),
)
# Pictures and model cards contain times, and archives do too. TensorBoard's files are logs of
# single processes.
_LEFT_OUT = (".png", ".html", ".keras", "README.md")
_FOLDERS_LEFT_OUT = {"logs", "checkpoints", "newest", "best"}


def digest(folder, output):
    """Writes digests of all files that a finished command left, by name, to ``output`` (JSON)."""
    folder, found = Path(folder), {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if _FOLDERS_LEFT_OUT & set(path.relative_to(folder).parts) or name.endswith(_LEFT_OUT):
            continue
        if path.name.endswith(checksums.NAME):
            # This file has checksums of files that contain times.
            assert not list(checksums.faults(path)), path
        elif path.name == "log.jsonl":
            found[name] = _log(path)
        elif path.suffix == ".h5":
            found |= {f"{name}/{key}": value for key, value in _arrays(path).items()}
        elif path.suffix == ".json":
            found[name] = _without_clocks(json.loads(path.read_text()))
        else:
            found[name] = _hash(path.read_bytes())
    for newest in sorted(folder.rglob("newest")):
        found |= _checkpoint(newest, str(newest.relative_to(folder)))
    Path(output).write_text(json.dumps(found))


def _hash(data):
    return hashlib.sha256(data).hexdigest()


def _arrays(path):
    import h5py

    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: _hash(np.asarray(item).tobytes())})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def _checkpoint(newest, name):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(newest)))
    return {
        f"{name}/{key}": _hash(reader.get_tensor(key).tobytes())
        for key in reader.get_variable_to_shape_map()
        # Clocks, and the object graph, which is text, are left out.
        if not key.startswith(("seconds", "timed_pairs", "_CHECKPOINTABLE", "save_counter"))
    }


def _log(path):
    lines = {}
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the line was cut off by a kill
            continue
        lines[f"{line['kind']} {line['step']}"] = _without_clocks(line)
    return dict(sorted(lines.items()))


def _without_clocks(value):
    if isinstance(value, dict):
        return {k: _without_clocks(v) for k, v in value.items() if k not in _NOT_COMPARED}
    return [_without_clocks(item) for item in value] if isinstance(value, list) else value
