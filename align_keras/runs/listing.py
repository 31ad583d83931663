"""Compares runs: their progress, their figures, and the settings in which they differ."""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align_keras import files, paths
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.evaluation.metrics import RECALLS, names_of_json
from align_keras.paths import AnyPath
from align_keras.runs.classification_settings import ClassificationSettings, Phase
from align_keras.runs.log_lines import read_log
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.settings import dotted

# Maximum number of folder levels between the given folder and a run.
_DEPTH = 2
# Settings that usually differ between runs but do not change the figures.
_OWN = {"workdir", "experiment", "tracker", "license"}
_PHASES = ("head", "full")
# Columns of figures, by their headings.
_COLUMNS = {
    "mean recall": "mean_recall",
    "i2t R@1": "i2t_recall_at_1",
    "t2i R@1": "t2i_recall_at_1",
    "zero-shot": "zero_shot_top_1",
    "top-1": "top_1",
}


@dataclasses.dataclass(frozen=True)
class ListedRun:
    """The facts about a run, from its files."""

    path: str
    experiment: str
    """Name of the experiment; empty if it is unknown."""
    steps: int
    """Step of the newest log line; for a classifier, the sum over both phases."""
    total_steps: int | None
    """Total steps of the run; None if they are unknown."""
    newest: dict[str, float]
    """The newest held-out figures; recalls have a ``mean_recall``."""
    best: dict[str, float]
    """The figures with the best mean recall, or else zero-shot accuracy, with their ``step``."""
    per_second: float | None
    """Pairs or images per second, the median over the log lines."""
    settings: dict[str, Any]
    """Settings by name; settings that the run did not record have their defaults."""


def list_runs(folders: Sequence[str]) -> list[ListedRun]:
    """The runs in several folders, by path.

    Args:
        folders: directories of runs, or folders that contain runs, up to two levels deep.

    Raises:
        MissingInputError: if a folder does not exist.
        InputError: if a folder contains no run, or the settings of a run are damaged.
    """
    found: dict[str, ListedRun] = {}
    for folder in folders:
        path = paths.path_of(folder)
        if not path.is_dir():
            raise MissingInputError("no such folder", Place(folder))
        own = list(_runs_below(path, _DEPTH))
        if not own:
            raise InputError(
                "no run in the folder", Place(folder), "give runs/, or a run's directory"
            )
        found |= {str(run): _read(run) for run in own}
    return list(found.values())


def differing(runs: Sequence[ListedRun]) -> list[dict[str, Any]]:
    """For each run, its settings that are not equal in all runs."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in _OWN)
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    others = [name for name, own in values.items() if any(value != own[0] for value in own)]
    return [{name: run.settings[name] for name in others if name in run.settings} for run in runs]


def as_json(runs: Sequence[ListedRun]) -> str:
    """The runs as JSON text: a list of objects with the fields of ``ListedRun``."""
    return json.dumps([dataclasses.asdict(run) for run in runs], indent=2) + "\n"


def format_runs(runs: Sequence[ListedRun]) -> str:
    """The runs as a table, and below it the settings in which they differ."""
    rows = [["run", "experiment", "steps", *_COLUMNS, "best", "per second"]]
    for run in runs:
        total = "" if run.total_steps is None else f" of {run.total_steps:,}"
        rows.append(
            [
                run.path,
                run.experiment,
                f"{run.steps:,}{total}",
                *(_percent(run.newest.get(name)) for name in _COLUMNS.values()),
                _best(run.best),
                "" if run.per_second is None else f"{run.per_second:,.3g}",
            ]
        )
    # Columns without any entry are left out.
    columns = [own for own in zip(*rows, strict=True) if any(own[1:])]
    widths = [max(map(len, column)) for column in columns]
    is_text = [column[0] in ("run", "experiment") for column in columns]
    lines = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    found = list(zip(runs, differing(runs), strict=True))
    if any(own for _, own in found):
        lines += ["", "settings that differ"]
        for run, own in found:
            lines.append(
                f"{run.path}: " + ", ".join(f"{name}={value}" for name, value in own.items())
            )
    return "\n".join(lines)


def _runs_below(folder: AnyPath, depth: int) -> Iterator[AnyPath]:
    if (folder / "settings.json").is_file():
        yield folder
    elif depth:
        inside: list[AnyPath] = sorted(folder.iterdir(), key=str)
        for below in inside:
            if below.is_dir():
                yield from _runs_below(below, depth - 1)


def _read(run: AnyPath) -> ListedRun:
    before = dotted(files.read_json(run / "settings.json", dict))
    is_classifier = "head.learning_rate" in before
    defaults = ClassificationSettings() if is_classifier else PretrainSettings()
    settings = dotted(json.loads(defaults.as_json())) | before
    logs = [read_log(run / phase) for phase in _PHASES] if is_classifier else [read_log(run)]
    held_out = [_with_mean(line) for log in logs for line in log if line["kind"] == "eval"]
    newest = _results(run) if is_classifier else dict(held_out[-1]) if held_out else {}
    newest.pop("step", None)
    speeds = [
        value
        for log in logs
        for line in log
        for name, value in line.items()
        if name in ("pairs_per_second", "images_per_second")
    ]
    return ListedRun(
        path=str(run),
        experiment=str(settings["experiment"]),
        steps=sum(max((line["step"] for line in log), default=0) for log in logs),
        total_steps=_total_steps(run, settings, is_classifier),
        newest=newest,
        best=max(held_out, key=lambda figures: _score(figures), default={}),
        per_second=statistics.median(speeds) if speeds else None,
        settings=settings,
    )


def _with_mean(line: Mapping[str, Any]) -> dict[str, float]:
    figures = {name: value for name, value in line.items() if name != "kind"}
    recalls = [figures[name] for name in RECALLS if name in figures]
    return figures | ({"mean_recall": statistics.fmean(recalls)} if recalls else {})


def _score(figures: Mapping[str, float]) -> float:
    """The value by which the best figures are chosen; a run prefers mean recall too."""
    return figures.get("mean_recall", figures.get("zero_shot_top_1", 0.0))


def _results(run: AnyPath) -> dict[str, float]:
    """The figures of a classifier after its last evaluated phase."""
    inside: list[AnyPath] = sorted(run.iterdir(), key=str)
    for kind in ("finetuned", "frozen"):
        for path in inside:
            if path.name.startswith(f"{kind}-") and path.name.endswith(".json"):
                result = files.read_json(path, dict, "evaluate again")
                return names_of_json(result.get("metrics", {}), kind)
    return {}


def _total_steps(run: AnyPath, settings: Mapping[str, Any], is_classifier: bool) -> int | None:
    if not is_classifier:
        return int(settings["steps"])
    try:
        images = files.read_json(run / "train_images.json", dict)["images"]
        phases = [
            Phase(epochs=settings[f"{name}.epochs"], steps=settings[f"{name}.steps"])
            for name in _PHASES
        ]
        return sum(own.num_steps(images, settings["batch_size"]) for own in phases)
    except (InputError, OSError, KeyError, TypeError):
        return None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _best(figures: Mapping[str, float]) -> str:
    return f"{_score(figures):.1%} at {figures['step']:,}" if figures else ""
