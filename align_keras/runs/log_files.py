"""The log of a run: ``log.jsonl``, TensorBoard's summaries and experiment trackers."""

import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from align_keras import full_disk, paths
from align_keras.line_files import LineFile
from align_keras.paths import AnyPath
from align_keras.runs.trackers import Track, nowhere


class LogFiles:
    """Writes the metrics of a run to ``log.jsonl``, to TensorBoard's summaries and to a tracker.

    Args:
        workdir: the run's directory.
        track: called with the step, the kind and the metrics of each line.
    """

    def __init__(self, workdir: AnyPath, track: Track = nowhere) -> None:
        self._folder = workdir / "logs"
        self._track = track
        self._lines = LineFile(workdir / "log.jsonl")
        # Otherwise a remote file would be rewritten whenever the queue is full.
        options = {"max_queue": 1 << 20} if paths.is_remote(workdir) else {}
        self._writer = tf.summary.create_file_writer(str(self._folder), **options)
        self._summaries: list[tuple[int, str, float]] = []

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes metrics, except None values.

        Args:
            step: the step of the run.
            kind: ``train`` or ``eval``.
            metrics: values by name.

        Raises:
            NoSpaceError: if the disk is full.
        """
        found = {name: value for name, value in metrics.items() if value is not None}
        self._summaries += [(step, f"{kind}/{name}", value) for name, value in found.items()]
        line = {"step": step, "kind": kind, **found}
        with full_disk.reported(str(self._lines.path)):
            is_written = self._lines.append(json.dumps(line))
        if is_written or kind == "eval":
            self.flush()
        self._track(step, kind, found)

    def flush(self) -> None:
        """Writes the lines and summaries that are held in memory for a remote directory.

        Raises:
            NoSpaceError: if the disk is full.
        """
        if not self._summaries:
            return
        summaries, self._summaries = self._summaries, []
        with full_disk.reported(str(self._folder)):
            self._lines.flush()
            # Closing the writer writes the file.
            with self._writer.as_default():
                for step, name, value in summaries:
                    tf.summary.scalar(name, value, step)
