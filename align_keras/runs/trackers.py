"""Experiment trackers other than TensorBoard: MLflow, Weights & Biases, Trackio.

Each tracker gets the settings and every line of the log. When a run resumes, each tracker continues
its own run, whose id is in ``trackers.json``. If a tracker fails, one line reports it, and training
continues without this tracker.
"""

import contextlib
import importlib.util
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import tqdm

from align_keras import files, paths
from align_keras.errors import InputError
from align_keras.paths import AnyPath

#: Called with a step, ``train`` or ``eval``, and metrics.
Track = Callable[[int, str, Mapping[str, Any]], None]
Values = Mapping[str, Any]
#: The project or experiment in the trackers, unless a tracker's environment variable names another.
PROJECT = "align-keras"
_IDS = "trackers.json"
# Maximum number of parameters that MLflow accepts at a time, and of characters in one.
_PARAMETERS, _LETTERS = 100, 500


class Tracker(Protocol):
    """A run of a tracker."""

    id: str
    """The id by which the tracker finds the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends metrics of a step."""

    def finish(self, status: str) -> None:
        """Ends the run: ``FINISHED``, ``FAILED`` or ``KILLED``."""


class MlflowTracker:
    """A run of MLflow, on the server or in the folder that ``MLFLOW_TRACKING_URI`` names.

    Args:
        name: name of the run.
        folder: directory of the run.
        settings: settings of the run, by name.
        run_id: id of the run to continue; empty for a new run.
    """

    def __init__(self, name: str, folder: AnyPath, settings: Values, run_id: str) -> None:
        import mlflow
        from mlflow.entities import Param

        self._client = mlflow.MlflowClient()
        self.id = run_id
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            return
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        self.id = self._client.create_run(number, run_name=name).info.run_id
        given = [Param(own, str(value)[:_LETTERS]) for own, value in settings.items()]
        for start in range(0, len(given), _PARAMETERS):
            self._client.log_batch(self.id, params=given[start : start + _PARAMETERS])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends metrics of a step; see ``Tracker``."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        self._client.log_batch(self.id, metrics=found)

    def finish(self, status: str) -> None:
        """Ends the run; see ``Tracker``."""
        self._client.set_terminated(self.id, status)


class WandbTracker:
    """A run of Weights & Biases, in ``WANDB_PROJECT``; ``WANDB_MODE=offline`` keeps it local.

    Args:
        name: name of the run.
        folder: directory of the run; if it is local, it gets a folder ``wandb/``.
        settings: settings of the run, by name.
        run_id: id of the run to continue; empty for a new run.
    """

    def __init__(self, name: str, folder: AnyPath, settings: Values, run_id: str) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            id=run_id or uuid.uuid4().hex[:8],
            resume="allow",
            config=dict(settings),
            allow_val_change=True,  # a resumed run may change some settings
            dir=None if paths.is_remote(folder) else str(folder),
            settings=wandb.Settings(console="off"),  # otherwise it would break the progress bar
        )
        self.id = self._run.id
        # The tracker's own steps must increase, but a resumed run returns to the step of its
        # checkpoint.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends metrics of a step; see ``Tracker``."""
        self._run.log({"step": step, **metrics})

    def finish(self, status: str) -> None:
        """Ends the run; see ``Tracker``."""
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)


class TrackioTracker:
    """A run of Trackio, which is kept on this machine unless ``TRACKIO_SPACE_ID`` names a space.

    Args:
        name: name of the run; an id is appended.
        folder: not used.
        settings: settings of the run, by name.
        run_id: id of the run to continue; empty for a new run.
    """

    def __init__(self, name: str, folder: AnyPath, settings: Values, run_id: str) -> None:
        import trackio

        # Trackio identifies runs by name.
        self.id = run_id or f"{name}-{uuid.uuid4().hex[:8]}"
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(project, name=self.id, config=dict(settings), resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends metrics of a step; see ``Tracker``."""
        self._run.log(dict(metrics), step=step)

    def finish(self, status: str) -> None:
        """Ends the run; see ``Tracker``."""
        self._run.finish()


TRACKERS: dict[str, Callable[[str, AnyPath, Values, str], Tracker]] = {
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}
#: Always written, by ``log.TrainingLog``.
TENSORBOARD = "tensorboard"


def names_of(text: str) -> list[str]:
    """The trackers in a setting that joins their names by commas; TensorBoard is left out.

    Raises:
        InputError: if a tracker is unknown.
    """
    names = [name for name in map(str.strip, text.split(",")) if name]
    for name in names:
        if name not in (TENSORBOARD, *TRACKERS):
            raise InputError(
                f"unknown tracker {name!r}",
                remedy=f"choose one of {', '.join((TENSORBOARD, *TRACKERS))}",
                setting="tracker",
            )
    return [name for name in dict.fromkeys(names) if name != TENSORBOARD]


def check_installed(text: str) -> None:
    """Raises InputError if a tracker named in a setting is not installed; imports none of them."""
    for name in names_of(text):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"{name} is not installed",
                remedy=f"pip install 'align-keras[{name}]'",
                setting="tracker",
            )


def nowhere(step: int, kind: str, metrics: Mapping[str, Any]) -> None:
    """Does nothing."""


@contextlib.contextmanager
def tracking(
    text: str, workdir: AnyPath, settings: Mapping[str, Any], is_chief: bool = True
) -> Iterator[Track]:
    """Yields a function that sends metrics to all trackers; ends the trackers' runs at the end.

    Args:
        text: names of trackers, as for ``names_of``.
        workdir: the run's directory, which holds the ids of the trackers' runs.
        settings: settings of the run, by name.
        is_chief: whether this is the first of several workers; other workers track nothing.
    """
    started = _start(names_of(text), workdir, settings) if is_chief else {}

    def track(step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        values = {f"{kind}/{name}": value for name, value in metrics.items() if value is not None}
        for name in list(started):
            if not _works(name, lambda name=name: started[name].log(step, values)):  # type: ignore[misc]
                del started[name]

    status = "FAILED"
    try:
        yield track
        status = "FINISHED"
    except KeyboardInterrupt:  # a signal
        status = "KILLED"
        raise
    finally:
        for name, tracker in started.items():
            _works(name, lambda tracker=tracker: tracker.finish(status))  # type: ignore[misc]


def _start(names: list[str], workdir: AnyPath, settings: Values) -> dict[str, Tracker]:
    path, started = workdir / _IDS, {}
    ids: dict[str, str] = {}
    with contextlib.suppress(InputError, OSError):  # without the ids, the trackers start new runs
        ids = files.read_json(path, dict)

    def start(name: str) -> None:
        tracker = TRACKERS[name](workdir.name, workdir, settings, str(ids.get(name, "")))
        started[name], ids[name] = tracker, tracker.id
        files.write_whole(path, json.dumps(ids) + "\n")

    for name in names:
        _works(name, lambda name=name: start(name))  # type: ignore[misc]
    return started


def _works(name: str, action: Callable[[], Any]) -> bool:
    """Performs an action with a tracker; prints a line if it fails."""
    try:
        action()
    except Exception as error:  # any error of a library or of the network
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        line = f"{name} failed, and the run continues without it: {reason}"
        tqdm.tqdm.write(line, file=sys.stderr)
        return False
    return True
