"""Compares runs: their progress, held-out figures and speed, and the settings that differ.

    python recipes/compare_runs.py runs
    python recipes/compare_runs.py runs/photos runs/others --json=FILE

Takes directories of runs, and folders that contain runs. It reads only their logs, so it also works
for runs in progress. evaluate.py --compare compares evaluated runs, with intervals.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import align_keras  # noqa: F401  handles signals from here on

# isort: split
import tyro

from align_keras import paths
from align_keras.runs import command


@dataclasses.dataclass(frozen=True)
class CompareSettings:
    """Compares runs in a table."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Directories of runs, or folders that contain runs."""
    json: Annotated[str, paths.FILES] = ""
    """JSON file for the same information, with all settings and figures."""


def main(settings: CompareSettings) -> None:
    """Prints the table."""
    from align_keras import files
    from align_keras.runs import listing

    found = listing.list_runs([paths.FILES.read(run) for run in settings.runs])
    print(listing.format_runs(found))
    if settings.json:
        files.write_whole(paths.path_of(settings.json), listing.as_json(found))


def parse(arguments: Sequence[str] | None = None) -> CompareSettings:
    """Reads the flags."""
    return command.parse(CompareSettings, arguments, description=__doc__)


if __name__ == "__main__":
    command.run("compare_runs.py", parse, main)
