"""Checkpoints on remote file systems: prepared locally, with their checksums copied last.

Names and checksum files are the same as for local checkpoints. Remote folders cannot be renamed, so
the checksum file marks a checkpoint as complete. Files of a step without it were left by a killed
process and are never read. Each file is copied as one object; TensorFlow would write parts and then
make the store copy these parts.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align_keras import checksums, full_disk, leases, uploads
from align_keras.remote_path import RemotePath
from align_keras.runs.checkpoint_files import LIST_END, CheckpointFolder


class RemoteCheckpointFolder(CheckpointFolder):
    """Like ``CheckpointFolder``, for a remote folder.

    Args:
        path: path of the folder, which need not exist.
        max_to_keep: number of newest checkpoints to keep.
    """

    path: RemotePath

    def __init__(self, path: RemotePath, max_to_keep: int) -> None:
        super().__init__(path, str(path), max_to_keep)

    def write(self, step: int, save: Callable[[str], Any]) -> None:
        """As in ``CheckpointFolder``.

        Raises:
            NoSpaceError: if the local disk is full.
            InputError: if another run has taken over the directory.
        """
        leases.check(self.path)
        with full_disk.reported(str(self.path / f"ckpt-{step}")):
            with tempfile.TemporaryDirectory() as folder:
                save(f"{folder}/ckpt-{step}")
                names = sorted(path.name for path in Path(folder).glob(f"ckpt-{step}.*"))
                found = {name: checksums.of_file(Path(folder) / name) for name in names}
                self.path.mkdir(parents=True, exist_ok=True)
                # From here on, the old checkpoint of that step is invalid, until the new one is
                # complete.
                (self.path / f"ckpt-{step}{LIST_END}").unlink(missing_ok=True)
                for name in names:
                    uploads.put(Path(folder) / name, self.path / name)
            checksums.write(self.path / f"ckpt-{step}{LIST_END}", found)
        self._write_state()
        self._written(step)

    def sweep(self) -> None:
        """Removes incomplete checkpoints left by a killed process."""
        whole = {name for _, name in self._files()}
        for _, name in self._all_files():
            if name not in whole:
                (self.path / name).unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, str]]:
        found = self._all_files()
        whole = {step for step, name in found if name.endswith(LIST_END)}
        return [(step, name) for step, name in found if step in whole]

    def _all_files(self) -> list[tuple[int, str]]:
        """Like ``_files``, but includes checkpoints without a checksum file."""
        return super()._files()
