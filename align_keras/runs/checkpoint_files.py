"""The files of checkpoints in one folder: written whole, checked before use, set aside if damaged.

A checkpoint is ``ckpt-STEP.index``, ``ckpt-STEP.data-*`` and ``ckpt-STEP.checksums.json``; those of
earlier versions lack the last. These files alone say what is there: the file ``checkpoint`` is for
``tf.train.latest_checkpoint`` and never read here.
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

#: How the name of a checkpoint's list of checksums ends.
LIST_END = ".checksums.json"
_STEP = "(0|[1-9][0-9]{0,17})"
_FILE = re.compile(rf"ckpt-{_STEP}\.(index|data-[0-9]{{5}}-of-[0-9]{{5}}|checksums\.json)")
#: What a process leaves that was killed while TensorFlow wrote; earlier versions wrote in place.
_TEMPORARY = re.compile(rf"ckpt-{_STEP}_temp")
_UNFINISHED = "unfinished"


class CheckpointFolder:
    """Checkpoints by step, on this machine; ``remote_checkpoints`` has those elsewhere.

    Args:
        path: path of the folder, which need not exist.
        address: the folder as TensorFlow takes it: a path that is not a pattern.
        max_to_keep: how many of the newest to keep.
    """

    path: Any  # of the subclass a RemotePath

    def __init__(self, path: AnyPath, address: str, max_to_keep: int) -> None:
        self.path = path
        self.address = address
        self.max_to_keep = max_to_keep
        self._faults: dict[int, str] = {}

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, complete or not; newest first."""
        return sorted({step for step, _ in self._files()}, reverse=True)

    def prefix(self, step: int) -> str:
        """A checkpoint as TensorFlow takes it."""
        return f"{self.address}/ckpt-{step}"

    def write(self, step: int, save: Callable[[str], Any]) -> None:
        """Writes a checkpoint whole or not at all, and removes the oldest.

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
            # Here: Keras takes TensorFlow's error about a limit on a file's size, OutOfRangeError,
            # for the end of the data, and ends training as if it were done.
            with full_disk.reported(self.path / f"ckpt-{step}"):
                save(f"{self.address}/{_UNFINISHED}/ckpt-{step}")
                names = [path.name for path in work.iterdir()]
                checksums.write(
                    work / f"ckpt-{step}{LIST_END}",
                    {name: checksums.of_file(work / name) for name in names},
                )
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)  # on a full disk it would take the rest
            raise
        # Otherwise a machine that loses power may keep the names without the bytes.
        for path in (*work.iterdir(), work):
            files.flush(path)
        self._move_finished()
        self._written(step)

    def _written(self, step: int) -> None:
        """Removes the oldest after a write."""
        self._faults.pop(step, None)
        others = [own for own in self.steps() if own != step]
        for own in others[self.max_to_keep - 1 :]:
            self._remove(own)

    def sweep(self) -> None:
        """Clears up after a process that was killed: its finished write counts, another is gone."""
        if not self.path.is_dir():
            return
        for path in self.path.iterdir():
            if _TEMPORARY.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        if (self.path / _UNFINISHED).is_dir():
            self._move_finished()

    def fault(self, step: int) -> str:
        """What is wrong with the files of a checkpoint; empty if it can be restored."""
        if step not in self._faults:
            self._faults[step] = self._find_fault(step)
        return self._faults[step]

    def set_aside(self, step: int) -> AnyPath:
        """Moves a checkpoint into a folder beside, which nothing reads or removes; its path."""
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
        """Step and name of every file of a checkpoint."""
        names = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        return [(int(match[1]), match[0]) for match in map(_FILE.fullmatch, sorted(names)) if match]

    def _move_finished(self) -> None:
        """Moves a completely written checkpoint to its place; removes one that is not.

        The list of checksums is written and moved last. So where it is, all is written, and after
        a kill the next call moves the rest.
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
        # The list first: without it the rest is no checkpoint elsewhere than on this machine.
        for name in self._names_of(step, list_last=False):
            (self.path / name).unlink()

    def _write_state(self) -> None:
        """Names the newest checkpoint to ``tf.train.latest_checkpoint``."""
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
        """Reads every tensor, of each of which TensorFlow keeps a checksum."""
        try:
            reader = tf.train.load_checkpoint(self.prefix(step))
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        # All of these come of damaged files.
        except (tf.errors.OpError, ValueError, IndexError, RuntimeError):
            return "a file is damaged or gone: TensorFlow cannot read it"
        return ""
