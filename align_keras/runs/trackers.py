"""Trackers of experiments beside TensorBoard: MLflow, Weights & Biases, Trackio.

Each gets every line of the log and the settings. A run that resumes goes on in the tracker's same
run, whose id is in ``trackers.json``. A tracker that fails is left out from then on, with one line;
training goes on.
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
#: What they file runs under, unless the tracker's own variable says otherwise.
PROJECT = "align-keras"
_IDS = "trackers.json"
# Parameters that MLflow takes at a time, and letters of one.
_PARAMETERS, _LETTERS = 100, 500


class Tracker(Protocol):
    """A run of a tracker."""

    id: str
    """By which the tracker finds the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends metrics of a step."""

    def finish(self, status: str) -> None:
        """Ends the run: ``FINISHED``, ``FAILED`` or ``KILLED``."""


class MlflowTracker:
    """A run of MLflow, where ``MLFLOW_TRACKING_URI`` says.

    Args:
        name: of the run.
        folder: of the run.
        settings: of the run, by their names.
        run_id: of a run that goes on; empty for a new one.
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
        """As of ``Tracker``."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        self._client.log_batch(self.id, metrics=found)

    def finish(self, status: str) -> None:
        """As of ``Tracker``."""
        self._client.set_terminated(self.id, status)


class WandbTracker:
    """A run of Weights & Biases, under ``WANDB_PROJECT``; ``WANDB_MODE=offline`` keeps it here.

    Args:
        name: of the run.
        folder: of the run; holds ``wandb/`` if it is on this machine.
        settings: of the run, by their names.
        run_id: of a run that goes on; empty for a new one.
    """

    def __init__(self, name: str, folder: AnyPath, settings: Values, run_id: str) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            id=run_id or uuid.uuid4().hex[:8],
            resume="allow",
            config=dict(settings),
            allow_val_change=True,  # of what a resumed run may change
            dir=None if paths.is_remote(folder) else str(folder),
            settings=wandb.Settings(console="off"),  # it would take the progress bar apart
        )
        self.id = self._run.id
        # Its own steps must rise, and those of a resumed run go back to the checkpoint.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """As of ``Tracker``."""
        self._run.log({"step": step, **metrics})

    def finish(self, status: str) -> None:
        """As of ``Tracker``."""
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)


class TrackioTracker:
    """A run of Trackio, which keeps it on this machine unless ``TRACKIO_SPACE_ID`` names a space.

    Args:
        name: of the run, which is put before an id.
        folder: not read.
        settings: of the run, by their names.
        run_id: of a run that goes on; empty for a new one.
    """

    def __init__(self, name: str, folder: AnyPath, settings: Values, run_id: str) -> None:
        import trackio

        # Trackio knows runs by their names.
        self.id = run_id or f"{name}-{uuid.uuid4().hex[:8]}"
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(project, name=self.id, config=dict(settings), resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """As of ``Tracker``."""
        self._run.log(dict(metrics), step=step)

    def finish(self, status: str) -> None:
        """As of ``Tracker``."""
        self._run.finish()


TRACKERS: dict[str, Callable[[str, AnyPath, Values, str], Tracker]] = {
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}
#: Always written: by ``log.TrainingLog`` itself.
TENSORBOARD = "tensorboard"


def names_of(text: str) -> list[str]:
    """The trackers of a setting, joined by commas there; without TensorBoard.

    Raises:
        InputError: if there is no such tracker.
    """
    names = [name for name in map(str.strip, text.split(",")) if name]
    for name in names:
        if name not in (TENSORBOARD, *TRACKERS):
            raise InputError(
                f"no tracker {name!r}",
                remedy=f"choose of {', '.join((TENSORBOARD, *TRACKERS))}",
                setting="tracker",
            )
    return [name for name in dict.fromkeys(names) if name != TENSORBOARD]


def check_installed(text: str) -> None:
    """Raises InputError if a tracker of a setting is not installed; imports none."""
    for name in names_of(text):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"{name} is not installed",
                remedy=f"pip install 'align-keras[{name}]'",
                setting="tracker",
            )


def nowhere(step: int, kind: str, metrics: Mapping[str, Any]) -> None:
    """Tracks nothing."""


@contextlib.contextmanager
def tracking(
    text: str, workdir: AnyPath, settings: Mapping[str, Any], is_chief: bool = True
) -> Iterator[Track]:
    """Yields what tracks a run; at the end the trackers' runs end too.

    Args:
        text: names of trackers, as of ``names_of``.
        workdir: the run's directory; holds the ids of the trackers' runs.
        settings: of the run, by their names.
        is_chief: whether this is the first of several workers; others track nothing.
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
    with contextlib.suppress(InputError, OSError):  # without it the trackers begin new runs
        ids = files.read_json(path, dict)

    def start(name: str) -> None:
        tracker = TRACKERS[name](workdir.name, workdir, settings, str(ids.get(name, "")))
        started[name], ids[name] = tracker, tracker.id
        files.write_whole(path, json.dumps(ids) + "\n")

    for name in names:
        _works(name, lambda name=name: start(name))  # type: ignore[misc]
    return started


def _works(name: str, action: Callable[[], Any]) -> bool:
    """Does something with a tracker; says in a line if that fails."""
    try:
        action()
    except Exception as error:  # of any library, and of the network
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        line = f"{name} failed, the run goes on without it: {reason}"
        tqdm.tqdm.write(line, file=sys.stderr)
        return False
    return True
