"""Checkpoints from which a run resumes exactly."""

import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from align_keras import distribution, keras_internals, paths, progress
from align_keras.errors import InputError, Place
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath
from align_keras.runs.checkpoint_files import CheckpointFolder
from align_keras.runs.remote_checkpoints import RemoteCheckpointFolder

#: Values that a worker reports instead of a step when workers compare steps: it has no checkpoint,
#: or none of its checkpoints can be restored.
_NONE, _UNFIT = -1, -2


class RunCheckpoints:
    """Checkpoints of a compiled model, its optimizer and its random state.

    Resuming is bit-exact. The state of dropout's seed generators, which Keras's own savers leave
    out, is saved as well. Every checkpoint holds the complete state. If newer ones are damaged, a
    run resumes just as exactly from an older one or from the best one.

    Args:
        directory: holds ``newest/`` and ``best/``.
        model: a compiled model. Its optimizer is built here, because an unbuilt optimizer is not
            restored.
        max_to_keep: number of newest checkpoints to keep.

    Attributes:
        saved_step: the step of the newest checkpoint; 0 if there is none.
    """

    def __init__(self, directory: str | AnyPath, model: keras.Model, max_to_keep: int = 3) -> None:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.model = model
        self.saved_step = 0
        self._skipped_steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.best_score = tf.Variable(-1.0, trainable=False)
        self.seconds = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        self.timed_pairs = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            seeds=[state.value for state in keras_internals.seed_generator_states(model)],
            skipped_steps=self._skipped_steps,
            best_score=self.best_score,
            seconds=self.seconds,
            timed_pairs=self.timed_pairs,
        )
        self._directory = paths.path_of(directory)
        self._newest, self._best = self._folder("newest", max_to_keep), self._folder("best", 1)

    def _folder(self, name: str, max_to_keep: int) -> CheckpointFolder:
        if isinstance(self._directory, RemotePath):
            return RemoteCheckpointFolder(self._directory / name, max_to_keep)
        address = f"{self._as_tensorflow_takes_it(self._directory)}/{name}"
        return CheckpointFolder(self._directory / name, address, max_to_keep)

    def _as_tensorflow_takes_it(self, directory: Path) -> Path:
        """The directory; if its path has pattern characters, a link to it without them.

        TensorFlow reads ``runs [v2]`` as a pattern. It would find no checkpoints, or the
        checkpoints of ``runs v``.
        """
        if paths.is_plain(directory):
            return directory
        directory.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        link = Path(folder) / "checkpoints"
        link.symlink_to(directory.resolve())
        return link

    @property
    def step(self) -> int:
        """The number of steps done, including steps skipped because float16 overflowed."""
        return int(self.model.optimizer.iterations.numpy() + self._skipped_steps.numpy())

    def count_steps(self, steps: int) -> None:
        """Sets the number of steps done; the optimizer counts only those it applied."""
        self._skipped_steps.assign(steps - int(self.model.optimizer.iterations.numpy()))

    def restore(self, strategy: Any = None) -> int:
        """Restores the newest intact checkpoint, if there is one.

        Newer damaged checkpoints, and damaged ones in ``best/``, are renamed and reported. Several
        workers resume at the newest step for which all of them have an intact checkpoint. Every
        worker must call this method.

        Args:
            strategy: the run's strategy; None for one worker.

        Returns:
            The number of steps done.

        Raises:
            InputError: if there are checkpoints but none is intact; if no step has an intact
                checkpoint on every worker; or if the checkpoint belongs to another model or
                optimizer.
        """
        for folder in (self._newest, self._best):
            folder.sweep()
        step = self._agree(strategy)
        if step != _NONE:
            found = self._newest_sound(step)
            assert found is not None
            with progress.working("restoring the checkpoint"):
                self._read(*found)
            self._set_aside_all_but(step)
            if found[1] is self._best and step not in self._newest.steps():
                # the run was killed between the two saves; the last step must be among the newest
                self.save()
            self.best_score.assign(self._score_of_best())
        else:
            self._set_aside_all_but(_NONE)
        self.saved_step = self.step
        return self.step

    def _kept(self) -> list[tuple[int, CheckpointFolder]]:
        """Every checkpoint as its step and its folder, newest first."""
        kept = [(step, folder) for folder in (self._newest, self._best) for step in folder.steps()]
        return sorted(kept, key=lambda one: one[0], reverse=True)

    def _newest_sound(self, limit: int) -> tuple[int, CheckpointFolder] | None:
        """The newest intact checkpoint up to a step."""
        found = ((step, folder) for step, folder in self._kept() if step <= limit)
        return next((one for one in found if not one[1].fault(one[0])), None)

    def _agree(self, strategy: Any) -> int:
        """The newest step for which every worker has an intact checkpoint; ``_NONE`` to start anew.

        Each worker proposes its newest step. Workers whose proposal exceeds the lowest one then
        propose an older step.
        """
        limit, newest = sys.maxsize, None
        while True:
            found = self._newest_sound(limit)
            own = found[0] if found else _UNFIT if self._kept() else _NONE
            steps = distribution.gather_from_workers(strategy, own)
            newest = newest or steps
            limit = min(steps)
            if limit == max(steps) and limit != _UNFIT:
                return limit
            if limit < 0:
                kept = len({step for step, _ in self._kept()})
                most = max(distribution.gather_from_workers(strategy, kept))
                # The run was killed after some workers, but not all, had written their first
                # checkpoint.
                if limit == _NONE and most == 1 and _UNFIT not in newest:
                    return _NONE
                raise self._no_common_step(newest)

    def _no_common_step(self, newest: list[int]) -> InputError:
        """The error if the workers, with these newest steps, have no common intact checkpoint."""
        faults = ", ".join(
            f"{folder.path.name}/ckpt-{step} ({folder.fault(step)})"
            for step, folder in self._kept()
            if folder.fault(step)
        )
        if len(newest) == 1:
            problem = f"no checkpoint is intact: {faults}"
            remedy = "restore one, or give another <workdir>"
        else:
            steps = ", ".join("none" if step < 0 else f"{step:,}" for step in newest)
            problem = (
                "no step has an intact checkpoint on every worker; by worker, the newest "
                f"steps are {steps}" + (f"; damaged here: {faults}" if faults else "")
            )
            remedy = (
                "copy checkpoints/ and skipped.json of one worker to the others, or give another "
                "<workdir>"
            )
        return InputError(problem, Place(str(self._directory)), remedy)

    def _read(self, step: int, folder: CheckpointFolder) -> None:
        place = Place(str(folder.path / f"ckpt-{step}"))
        try:
            status = self._checkpoint.read(folder.prefix(step), self._options())
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise InputError(
                "not a checkpoint of this model and optimizer",
                place,
                "give another <workdir>, or the settings that the run began with",
            ) from error
        if self.step != step:
            raise InputError(
                f"it is a checkpoint of step {self.step:,}, renamed",
                place,
                "move it away, or give another <workdir>",
            )

    def _score_of_best(self) -> float:
        """The score that a new best checkpoint must exceed; -1 if the best checkpoint is lost.

        It is read from the best checkpoint: if a run ended between the two saves, the newest
        checkpoint still holds the earlier score.
        """
        steps = self._best.steps()
        if not steps:
            return -1.0
        # Not `load_variable`: a bucket has a folder with the name of the checkpoint.
        score = tf.Variable(-1.0, trainable=False)
        status = tf.train.Checkpoint(best_score=score).read(
            self._best.prefix(max(steps)), self._options()
        )
        status.expect_partial()
        return float(score.numpy())

    def _set_aside_all_but(self, step: int) -> None:
        """Renames checkpoints that are damaged or newer than the step, but does not delete them."""
        for own, folder in self._kept():
            # Of the older checkpoints, only the best one may still be needed.
            fault = folder.fault(own) if own >= step or folder is self._best else ""
            if fault or own > step:
                path = folder.path / f"ckpt-{own}"
                aside = folder.set_aside(own)
                newer = "newer than the checkpoints of other workers"
                reason = f"damaged ({fault})" if fault else newer
                print(f"{path} is {reason}; it is kept in {aside}", flush=True)

    def save(self) -> None:
        """Saves the newest checkpoint and removes the oldest ones."""
        with progress.working("saving a checkpoint"):
            self._newest.write(self.step, self._write)
        self.saved_step = self.step

    def save_if_best(self, score: float) -> bool:
        """Saves the best checkpoint if ``score`` is the best so far; returns whether it is."""
        # NaN is never the best score.
        if not score > float(self.best_score.numpy()):
            return False
        self.best_score.assign(score)
        with progress.working("saving the best checkpoint"):
            self._best.write(self.step, self._write)
        return True

    def _write(self, prefix: str) -> None:
        self._checkpoint.write(prefix, self._options())

    def _options(self) -> tf.train.CheckpointOptions | None:
        """On TPUs, this process writes checkpoints, since the TPU hosts have separate disks."""
        if isinstance(self.model.distribute_strategy, tf.distribute.TPUStrategy):
            return tf.train.CheckpointOptions(experimental_io_device="/job:localhost")
        return None
