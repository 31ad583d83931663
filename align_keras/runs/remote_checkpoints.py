"""Checkpoints on file systems of TensorFlow's: prepared on this machine, their list copied last.

Names and lists are as on this machine. A folder there cannot be renamed, so the list of checksums
marks a checkpoint as whole: files of a step without one are what a killed process left, and are
never read. Each file is copied as one object; TensorFlow alone would write parts and have the store
copy those.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align_keras import checksums, full_disk, leases, uploads
from align_keras.remote_path import RemotePath
from align_keras.runs.checkpoint_files import LIST_END, CheckpointFolder


class RemoteCheckpointFolder(CheckpointFolder):
    """Like ``CheckpointFolder``, for an address.

    Args:
        path: path of the folder, which need not exist.
        max_to_keep: how many of the newest to keep.
    """

    path: RemotePath

    def __init__(self, path: RemotePath, max_to_keep: int) -> None:
        super().__init__(path, str(path), max_to_keep)

    def write(self, step: int, save: Callable[[str], Any]) -> None:
        """As in ``CheckpointFolder``.

        Raises:
            NoSpaceError: if the disk of this machine is full.
            InputError: if another run has taken the directory over.
        """
        leases.check(self.path)
        with full_disk.reported(str(self.path / f"ckpt-{step}")):
            with tempfile.TemporaryDirectory() as folder:
                save(f"{folder}/ckpt-{step}")
                names = sorted(path.name for path in Path(folder).glob(f"ckpt-{step}.*"))
                found = {name: checksums.of_file(Path(folder) / name) for name in names}
                self.path.mkdir(parents=True, exist_ok=True)
                # A checkpoint of that step is none from here on, until the new one is whole.
                (self.path / f"ckpt-{step}{LIST_END}").unlink(missing_ok=True)
                for name in names:
                    uploads.put(Path(folder) / name, self.path / name)
            checksums.write(self.path / f"ckpt-{step}{LIST_END}", found)
        self._write_state()
        self._written(step)

    def sweep(self) -> None:
        """Removes what a killed process has left of a checkpoint."""
        whole = {name for _, name in self._files()}
        for _, name in self._all_files():
            if name not in whole:
                (self.path / name).unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, str]]:
        found = self._all_files()
        whole = {step for step, name in found if name.endswith(LIST_END)}
        return [(step, name) for step, name in found if step in whole]

    def _all_files(self) -> list[tuple[int, str]]:
        """Like ``_files``, also of checkpoints without a list."""
        return super()._files()
