"""What to do next: the commands that a command names at its end, ready to copy."""

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from align_keras import paths
from align_keras.paths import AnyPath
from align_keras.runs import command


def recipe(name: str, *words: str, **settings: object) -> str:
    """A command of another recipe, by the same Python and from the same folder as this one.

    Args:
        name: such as ``search.py``.
        *words: what follows it.
        **settings: values by the names of settings.
    """
    flags = [f"{command.flag_of(own)}={shlex.quote(str(value))}" for own, value in settings.items()]
    path = os.path.join(os.path.dirname(sys.argv[0]), name)
    return " ".join([_python(), shlex.quote(path), *map(shlex.quote, words), *flags])


def tensorboard(workdir: str | AnyPath) -> str:
    """The command that shows a run's curves; empty without TensorBoard."""
    if find_spec("tensorboard") is None:
        return ""
    beside = Path(sys.executable).with_name("tensorboard")
    program = _short(str(beside)) if beside.exists() else f"{_python()} -m tensorboard.main"
    return f"{program} --logdir={shlex.quote(str(workdir))}"


def show(*commands: str) -> None:
    """Prints commands, each on a line of its own; empty ones are left out."""
    print("\nnext:")
    for line in filter(None, commands):
        print(f"  {line}")


def of_training(workdir: AnyPath, held_out: str) -> tuple[str, ...]:
    """What to do with a run: its curves, its figures, searching with it.

    Args:
        workdir: of the run.
        held_out: where held-out pairs are; empty for none.
    """
    own = "held_out"
    data = held_out or "PAIRS.jsonl"
    return (
        tensorboard(workdir),
        recipe("evaluate.py", model=workdir, task=f"retrieval:{own}", data=data),
        recipe("search.py", "index", model=workdir, images="PHOTOS", output="INDEX"),
    )


def _python() -> str:
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and os.path.samefile(found, sys.executable) and sys.prefix == _prefix_of(found):
            return name
    return shlex.quote(_short(sys.executable))


def _prefix_of(python: str) -> str:
    """The environment of a Python: the folder above its own, without following links."""
    return str(Path(python).parent.parent)


def _short(path: str) -> str:
    """A path from the working directory, where it is below that."""
    own = os.path.relpath(path)
    return path if own.startswith(os.pardir) else own


def held_out_of(workdir: AnyPath, eval_data: str, train_data: str) -> str:
    """Where the held-out pairs of a run are; those that it rendered where it had no data."""
    if eval_data or train_data:
        return eval_data
    return str(paths.path_of(workdir) / "data" / "eval-*.tfrecord")
