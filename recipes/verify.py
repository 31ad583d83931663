"""Checks the files that other recipes wrote against their checksums.

    python recipes/verify.py INDEX runs/photos EXPORTED/photos/1
    python recipes/verify.py SHARDS/train 'SHARDS/val-*.tfrecord'

Takes indexes, presets, runs, exported models, sets of shards, and folders that contain these. Exits
with 1 if a file is damaged or missing. Files from earlier versions or from a hub have no checksums.
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
    """Checks files against the checksums that were written beside them."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Folders to verify. Shards may also be given as patterns or path prefixes."""


def main(settings: VerifySettings) -> None:
    """Prints a line for each result and each damaged file; exits with 1 if a file is damaged."""
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
