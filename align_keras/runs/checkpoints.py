"""Checkpoints from which a run resumes exactly."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path

import keras
import tensorflow as tf

from align_keras import keras_internals, paths
from align_keras.errors import InputError, Place


class RunCheckpoints:
    """Checkpoints of a compiled model, its optimizer and its random state.

    Resuming is bit-exact: Keras's own savers leave out the state of dropout's seed
    generators, so it is saved beside.

    Args:
        directory: holds ``newest/`` and ``best/``.
        model: a compiled model; its optimizer is built here, since an unbuilt one would not be
            restored.
        max_to_keep: how many of the newest to keep.

    Attributes:
        saved_step: the step of the newest checkpoint; 0 without one.
    """

    def __init__(self, directory: str | Path, model: keras.Model, max_to_keep: int = 3) -> None:
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
        self._directory = Path(directory)
        manager = tf.train.CheckpointManager
        folder = self._as_tensorflow_takes_it()
        self._newest = manager(self._checkpoint, f"{folder}/newest", max_to_keep)
        self._best = manager(self._checkpoint, f"{folder}/best", max_to_keep=1)

    def _as_tensorflow_takes_it(self) -> Path:
        """The directory, or a link to it whose path is no pattern.

        Below ``runs [v2]`` TensorFlow would find no checkpoint, and of old ones remove those
        that match: of ``runs v`` and ``runs 2``.
        """
        if paths.is_plain(self._directory):
            return self._directory
        self._directory.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        link = Path(folder) / "checkpoints"
        link.symlink_to(self._directory.resolve())
        return link

    @property
    def step(self) -> int:
        """Steps done, including those that overflowed float16 and changed nothing."""
        return int(self.model.optimizer.iterations.numpy() + self._skipped_steps.numpy())

    def count_steps(self, steps: int) -> None:
        """Sets the number of steps done; the optimizer counts only those it applied."""
        self._skipped_steps.assign(steps - int(self.model.optimizer.iterations.numpy()))

    def restore(self) -> int:
        """Restores the newest checkpoint, if there is one.

        Returns:
            The number of steps done.

        Raises:
            InputError: if it is of another model or optimizer.
        """
        path = self._newest.latest_checkpoint
        if path is not None:
            try:
                status = self._checkpoint.restore(path)
                status.assert_existing_objects_matched()
            except (AssertionError, ValueError, tf.errors.OpError) as error:
                raise InputError(
                    "not a checkpoint of this model and optimizer",
                    Place(str(self._directory / "newest" / os.path.basename(path))),
                    "give another <workdir>, or the settings that the run began with",
                ) from error
        self.saved_step = self.step
        return self.step

    def save(self) -> None:
        """Saves the newest checkpoint and drops the oldest."""
        self._newest.save(checkpoint_number=self.step)
        self.saved_step = self.step

    def save_if_best(self, score: float) -> bool:
        """Saves the best checkpoint if ``score`` is above all before; says whether it was."""
        # Not a number is above nothing.
        if not score > float(self.best_score.numpy()):
            return False
        self.best_score.assign(score)
        self._best.save(checkpoint_number=self.step)
        return True
