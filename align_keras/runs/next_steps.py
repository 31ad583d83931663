"""The commands for the next steps, which a command prints at its end, ready to copy."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from align_keras import paths
from align_keras.data import shard_sets
from align_keras.paths import AnyPath
from align_keras.runs import command

# Names of sets that are held out, in the order in which they are looked for.
_HELD_OUT = ("val", "valid", "validation", "dev", "eval", "test")


def recipe(name: str, *words: str, **settings: object) -> str:
    """A command of another recipe, with the same Python and from the same folder as this one.

    Args:
        name: name of the recipe, such as ``search.py``.
        *words: further words of the command.
        **settings: values of flags, by setting name.
    """
    flags = [f"{command.flag_of(own)}={shlex.quote(str(value))}" for own, value in settings.items()]
    path = os.path.join(os.path.dirname(sys.argv[0]), name)
    return " ".join([_python(), shlex.quote(path), *map(shlex.quote, words), *flags])


def tensorboard(workdir: str | AnyPath) -> str:
    """The command that shows a run's curves; empty if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        return ""
    beside = Path(sys.executable).with_name("tensorboard")
    program = _short(str(beside)) if beside.exists() else f"{_python()} -m tensorboard.main"
    return f"{program} --logdir={shlex.quote(str(workdir))}"


def show(*commands: str) -> None:
    """Prints commands, each on its own line; skips empty ones."""
    print("\nnext:")
    for line in filter(None, commands):
        print(f"  {line}")


def of_packing(output: str, kept: int, total: int) -> tuple[str, ...]:
    """The next commands after packing: inspect the shards, and train if they hold enough pairs.

    A set whose name says that it is held out becomes ``--eval-data``.

    Args:
        output: path and prefix of the shards.
        kept: number of pairs in the shards.
        total: number of pairs before any were left out.
    """
    inspect = recipe("inspect_data.py", data=shard_sets.pattern_of(output))
    if kept < total / 2:
        return (inspect,)
    folder, name = os.path.split(output)
    train, held_out = output, ""
    if name in _HELD_OUT:
        train, held_out = _beside(folder, ("train",)), output
    else:
        held_out = _beside(folder, _HELD_OUT)
    data = {"train_data": shard_sets.pattern_of(train) if train else "TRAINING_SHARDS"}
    if held_out:
        data["eval_data"] = shard_sets.pattern_of(held_out)
    return inspect, recipe("pretrain.py", **data, workdir="runs/photos")


def _beside(folder: str, names: Iterable[str]) -> str:
    """Path and prefix of the first of several sets that exists in a folder; empty for none."""
    sets = (os.path.join(folder, name) for name in names)
    return next(filter(shard_sets.find_set, sets), "")


def of_training(workdir: AnyPath, held_out: str) -> tuple[str, ...]:
    """The next commands after training: show curves, evaluate, build a search index.

    Args:
        workdir: the run's directory.
        held_out: path of the held-out pairs; empty for none.
    """
    data = held_out or "PAIRS.jsonl"
    images = held_out if held_out and not held_out.startswith("tfds:") else "PHOTOS"
    index = "INDEX" if paths.is_remote(workdir) else os.path.join(str(workdir), "index")
    return (
        tensorboard(workdir),
        recipe("evaluate.py", model=workdir, task="retrieval:held_out", data=data),
        recipe("search.py", "index", model=workdir, images=images, output=index),
    )


def _python() -> str:
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and os.path.samefile(found, sys.executable) and sys.prefix == _prefix_of(found):
            return name
    return shlex.quote(_short(sys.executable))


def _prefix_of(python: str) -> str:
    """The environment of a Python executable: the folder above its own, without following links."""
    return str(Path(python).parent.parent)


def _short(path: str) -> str:
    """A path relative to the working directory, if it is inside that directory."""
    own = os.path.relpath(path)
    return path if own.startswith(os.pardir) else own


def held_out_of(workdir: AnyPath, eval_data: str, train_data: str) -> str:
    """The path of a run's held-out pairs: the given ones, or the ones that the run rendered."""
    if eval_data or train_data:
        return eval_data
    return str(paths.path_of(workdir) / "data" / "eval-*.tfrecord")
