"""The files of checkpoints in a folder: complete, checked before use, set aside if damaged.

A checkpoint consists of ``ckpt-STEP.index``, ``ckpt-STEP.data-*`` and ``ckpt-STEP.checksums.json``;
earlier versions did not write the last. Only these files decide which checkpoints exist. The file
``checkpoint`` is written for ``tf.train.latest_checkpoint``, and is never read here.
"""

import itertools
import re
import shutil
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from align_keras import checksums, files, full_disk
from align_keras.errors import InputError, UnreachableError
from align_keras.paths import AnyPath

#: Ending of the file with a checkpoint's checksums.
LIST_END = ".checksums.json"
_STEP = "(0|[1-9][0-9]{0,17})"
_FILE = re.compile(rf"ckpt-{_STEP}\.(index|data-[0-9]{{5}}-of-[0-9]{{5}}|checksums\.json)")
#: Left by a process that was killed while TensorFlow wrote; earlier versions wrote in place.
_TEMPORARY = re.compile(rf"ckpt-{_STEP}_temp")
_UNFINISHED = "unfinished"


class CheckpointFolder:
    """Checkpoints by step, on this machine; ``remote_checkpoints`` handles remote ones.

    Args:
        path: path of the folder, which need not exist.
        address: the folder in the form that TensorFlow needs: a path that is not a pattern.
        max_to_keep: number of newest checkpoints to keep.
    """

    path: Any  # a RemotePath in the subclass

    def __init__(self, path: AnyPath, address: str, max_to_keep: int) -> None:
        self.path = path
        self.address = address
        self.max_to_keep = max_to_keep
        self._faults: dict[int, str] = {}

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, complete or not, newest first."""
        return sorted({step for step, _ in self._files()}, reverse=True)

    def prefix(self, step: int) -> str:
        """The prefix of a checkpoint in the form that TensorFlow needs."""
        return f"{self.address}/ckpt-{step}"

    def write(self, step: int, save: Callable[[str], Any]) -> None:
        """Writes a checkpoint completely or not at all, and removes the oldest ones.

        Args:
            step: step of the run. A checkpoint of that step is replaced.
            save: writes TensorFlow's files, given the prefix of their paths.

        Raises:
            NoSpaceError: if the disk is full.
        """
        work = self.path / _UNFINISHED
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            # Caught here, since TensorFlow reports a limit on the file size as OutOfRangeError.
            # Keras would take it for the end of the data, and end training normally.
            with full_disk.reported(self.path / f"ckpt-{step}"):
                save(f"{self.address}/{_UNFINISHED}/ckpt-{step}")
                names = [path.name for path in work.iterdir()]
                checksums.write(
                    work / f"ckpt-{step}{LIST_END}",
                    {name: checksums.of_file(work / name) for name in names},
                )
        except BaseException:
            # otherwise it would fill the rest of a full disk
            shutil.rmtree(work, ignore_errors=True)
            raise
        # Otherwise a machine that loses power may keep the file names without their content.
        for path in (*work.iterdir(), work):
            files.flush(path)
        self._move_finished()
        self._written(step)

    def _written(self, step: int) -> None:
        """Removes the oldest checkpoints after a write."""
        self._faults.pop(step, None)
        others = [own for own in self.steps() if own != step]
        for own in others[self.max_to_keep - 1 :]:
            self._remove(own)

    def sweep(self) -> None:
        """Cleans up after a killed process: keeps a completed write, removes an incomplete one."""
        if not self.path.is_dir():
            return
        for path in self.path.iterdir():
            if _TEMPORARY.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        if (self.path / _UNFINISHED).is_dir():
            self._move_finished()

    def fault(self, step: int) -> str:
        """The fault in the files of a checkpoint; empty if it can be restored."""
        if step not in self._faults:
            self._faults[step] = self._find_fault(step)
        return self._faults[step]

    def set_aside(self, step: int) -> AnyPath:
        """Moves a checkpoint into a folder that nothing reads or removes; returns its path."""
        numbers = itertools.count(2)
        aside = self.path / f"ckpt-{step}.aside"
        while aside.exists():
            aside = self.path / f"ckpt-{step}.aside-{next(numbers)}"
        aside.mkdir()
        for name in self._names_of(step, list_last=True):
            (self.path / name).rename(aside / name)
        self._write_state()
        return aside

    def _files(self) -> list[tuple[int, str]]:
        """The step and name of every checkpoint file."""
        names = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        return [(int(match[1]), match[0]) for match in map(_FILE.fullmatch, sorted(names)) if match]

    def _move_finished(self) -> None:
        """Moves a completely written checkpoint to its place; removes an incomplete one.

        The checksums are written and moved last. If they exist, all files have been written, and
        after a kill the next call moves the remaining files.
        """
        work = self.path / _UNFINISHED
        written = sorted(work.iterdir(), key=lambda path: path.name.endswith(LIST_END))
        if written and written[-1].name.endswith(LIST_END):
            for path in written:
                path.replace(self.path / path.name)
            files.flush(self.path)
            self._write_state()
        shutil.rmtree(work, ignore_errors=True)

    def _names_of(self, step: int, list_last: bool) -> list[str]:
        names = [name for own, name in self._files() if own == step]
        return sorted(names, key=lambda name: name.endswith(LIST_END) == list_last)

    def _remove(self, step: int) -> None:
        # The checksums first: in a remote folder, the other files without them do not count as a
        # checkpoint.
        for name in self._names_of(step, list_last=False):
            (self.path / name).unlink()

    def _write_state(self) -> None:
        """Writes the name of the newest checkpoint for ``tf.train.latest_checkpoint``."""
        state = self.path / "checkpoint"
        if steps := self.steps():
            files.write_whole(state, f'model_checkpoint_path: "ckpt-{steps[0]}"\n')
        else:
            state.unlink(missing_ok=True)

    def _find_fault(self, step: int) -> str:
        sums = self.path / f"ckpt-{step}{LIST_END}"
        try:
            if checksums.read(sums) is None:
                return self._find_fault_by_tensorflow(step)
            for fault in checksums.faults(sums, needed=[f"ckpt-{step}.index"]):
                return self._reported(fault)
        except UnreachableError:
            raise
        except InputError as error:
            return self._reported(error)
        return ""

    def _reported(self, fault: InputError) -> str:
        name = fault.place.file.rpartition("/")[2] if fault.place else ""
        return f"{name}: {fault.problem}"

    def _find_fault_by_tensorflow(self, step: int) -> str:
        """Reads every tensor, since TensorFlow stores a checksum for each."""
        try:
            reader = tf.train.load_checkpoint(self.prefix(step))
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        # Damaged files can raise any of these.
        except (tf.errors.OpError, ValueError, IndexError, RuntimeError):
            return "a file is damaged or missing: TensorFlow cannot read it"
        return ""
