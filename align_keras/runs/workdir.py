"""The directory of a run: creates and locks it, and checks that a resumed run is unchanged."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from align_keras import files, paths, signals
from align_keras.errors import InputError, Place, concerning
from align_keras.locks import LockedError, locked
from align_keras.paths import AnyPath
from align_keras.runs.settings import Settings

# A name that no user's file has, since the lock is removed at the end.
_LOCK = ".align_keras.lock"
_CHECKPOINT = re.compile(r"ckpt-(\d+)\.index")


def open_workdir(
    settings: Settings,
    workdir: str,
    part: str = "",
    *,
    written: Sequence[str],
    held: contextlib.ExitStack | None = None,
    phases: Sequence[str] = ("",),
) -> AnyPath:
    """Opens the directory of a run, which need not exist.

    Args:
        settings: this run's settings.
        workdir: the directory; empty for a new one in ``runs/``, named after time and process.
        part: a subfolder to use instead, such as a worker's.
        written: names of files that the run writes or replaces there after it has begun.
        held: until it is closed, other processes cannot use the directory, and a signal prints how
            to resume. None lets others use it.
        phases: folders that contain ``checkpoints/``, in order.

    Raises:
        InputError: if it is an address to which TensorFlow cannot write; if it is a file; if
            another process uses it; if its run began with other settings; or if it holds one of
            ``written`` but no run.
    """
    with concerning("workdir"):
        # Two runs that begin in the same second must not share a directory.
        new = f"{time.strftime('runs/%Y%m%d-%H%M%S')}-{os.getpid()}"
        found = paths.path_of(workdir or new) / part
        if paths.is_remote(found) and not paths.is_plain(found):
            raise InputError(
                f"TensorFlow reads {paths.PATTERN_CHARACTERS} as a pattern, and would find no "
                "checkpoints there",
                Place(str(found)),
                "give a path without them",
            )
        for path in (found, *found.parents):
            if path.is_file():
                raise InputError(f"{path} is a file", remedy="give a directory")
    with contextlib.ExitStack() as own:
        with concerning("workdir"):
            own.enter_context(_in_use(found))
        path = found / "settings.json"
        if path.exists():
            settings.check_resumable(_read_settings(path, settings), found)
        elif there := [name for name in written if _is_there(found / name)]:
            raise InputError(
                f"already exists, and {found} has no settings.json of a run",
                Place(str(found / there[0])),
                "restore it, or give another",
                "workdir",
            )
        if held is not None:
            held.push(own.pop_all())
            held.enter_context(
                signals.explaining(lambda: how_to_resume(workdir or found, found, phases))
            )
    return found


def _read_settings(path: AnyPath, settings: Settings) -> dict[str, Any]:
    """The settings of the run in a directory; InputError if the file holds something else."""
    before, now = files.read_json(path, dict), json.loads(settings.as_json())
    known = before.keys() & now.keys()
    # Settings missing in a damaged file would silently get their defaults.
    if known and all(
        isinstance(before[name], dict) == isinstance(now[name], dict) for name in known
    ):
        return before
    raise files.damaged(path)


@contextlib.contextmanager
def _in_use(workdir: AnyPath) -> Iterator[None]:
    """Creates and locks a directory; at the end, removes it if it is new and empty."""
    is_new = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(workdir / _LOCK):
            yield
    except LockedError as error:
        raise InputError(
            "another run is using it",
            Place(str(workdir)),
            f"{error.remedy}, or give another",
            "workdir",
        ) from None
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                workdir.rmdir()


def how_to_resume(given: str | AnyPath, found: AnyPath, phases: Sequence[str] = ("",)) -> str:
    """The line after a signal: what has been saved of a run, and how to continue it.

    Args:
        given: the directory as given to the command.
        found: the directory in use.
        phases: folders that contain ``checkpoints/``, in order.
    """
    for phase in reversed(phases):
        # The best checkpoint may be newer than all others.
        place = found / phase / "checkpoints"
        folders = [folder for folder in (place / "newest", place / "best") if folder.is_dir()]
        names = (path.name for folder in folders for path in folder.iterdir())
        if steps := [int(own[1]) for own in map(_CHECKPOINT.fullmatch, names) if own]:
            where = f"step {max(steps):,}" + (f" of {phase}" if phase else "")
            return f"the same command with <workdir>={given} resumes at {where}"
    return "there is no checkpoint yet, so the same command starts from the beginning"


def _is_there(path: AnyPath) -> bool:
    """Whether the path is a file or a folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def check_training_data(
    path: AnyPath, found: Any, difference: Callable[[Any, Any], str], setting: str = "train_data"
) -> None:
    """Records a run's training data; when resuming, compares them with the record.

    With other data, a resumed run would silently continue at an arbitrary place in them. This must
    be called before ``settings.json`` is written, because that file marks the directory of a run.

    Args:
        path: path of a JSON file in the run's directory.
        found: description of the training data, for JSON.
        difference: describes how the data have changed, given the description before and now;
            returns an empty string if the change does not matter.
        setting: the setting that names the training data.

    Raises:
        InputError: if the data have changed, or if the record of a run is damaged or missing.
    """
    if not path.exists():
        if (path.parent / "settings.json").exists():
            raise files.missing(path)
        files.write_whole(path, json.dumps(found) + "\n")
        return
    before = files.read_json(path, type(found))
    if found == before:
        return
    try:
        changed = difference(before, found)
    except (KeyError, TypeError, ValueError, IndexError):  # JSON, but with another structure
        raise files.damaged(path) from None
    if changed:
        raise InputError(
            f"{changed} since the run in {path.parent} began",
            remedy=f"give the same data again ({path.name} lists them), or another <workdir>",
            setting=setting,
        )
