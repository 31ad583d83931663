"""Reads what the other recipes wrote, and says which files are not as they were written.

    python recipes/verify.py INDEX runs/photos EXPORTED/photos/1
    python recipes/verify.py SHARDS/train 'SHARDS/val-*.tfrecord'

Takes indexes, presets, runs, exported models and sets of shards, and folders of them. Exits with 1
if a file is damaged or missing. What an earlier version wrote, or what comes from a hub, has no
checksums.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"

import dataclasses
import sys
from collections.abc import Sequence

import align_keras  # noqa: F401  handles signals from here on

# isort: split
import tyro

from align_keras import paths, progress
from align_keras.runs import command


@dataclasses.dataclass(frozen=True)
class VerifySettings:
    """Holds files against the checksums that were written beside them."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Folders; of shards also patterns, or the path and start of their names."""


def main(settings: VerifySettings) -> None:
    """Prints a line for each thing and each damaged file; exits with 1 if there is one."""
    from align_keras.runs import verifying

    is_damaged = False
    given = [paths.FILES.read(path) for path in settings.paths]
    for path in given:
        with progress.working(f"reading {path}"):
            verified = verifying.verify(path)
        for found in verified:
            print(command.printable(str(found)), flush=True)
            for fault in found.faults:
                is_damaged = True
                print(f"verify.py: {command.printable(command.one_line(fault))}", file=sys.stderr)
    if is_damaged:
        sys.exit(1)


def parse(arguments: Sequence[str] | None = None) -> VerifySettings:
    """Reads the flags."""
    return command.parse(VerifySettings, arguments, description=__doc__)


if __name__ == "__main__":
    command.run("verify.py", parse, main)
