"""Saves a run so that it resumes exactly: checkpoints, and what the run began with."""

import json
import os

import tensorflow as tf

from align_keras.files import read_json, write_whole


class RunCheckpoints:
    """Checkpoints of a compiled model, its optimizer and its random state.

    Resuming is bit-exact: Keras's own savers leave out the state of dropout's seed
    generators, so those are saved beside.

    Args:
        directory: holds ``newest/`` and ``best/``.
        model: a compiled ``AlignDualEncoder``; its optimizer is built here, since an unbuilt
            one would not be restored.
        max_to_keep: how many of the newest to keep.
    """

    def __init__(self, directory, model, max_to_keep=3):
        model.optimizer.build(model.trainable_variables)
        self.model = model
        self._skipped_steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.best_score = tf.Variable(-1.0, trainable=False)
        self.seconds = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        self.timed_pairs = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            seeds=[v.value for v in model.variables if "seed" in v.path],
            skipped_steps=self._skipped_steps,
            best_score=self.best_score,
            seconds=self.seconds,
            timed_pairs=self.timed_pairs,
        )
        manager = tf.train.CheckpointManager
        self._newest = manager(self._checkpoint, f"{directory}/newest", max_to_keep)
        self._best = manager(self._checkpoint, f"{directory}/best", max_to_keep=1)

    @property
    def step(self):
        """Steps done, those included that overflowed float16 and changed nothing."""
        return int(self.model.optimizer.iterations.numpy() + self._skipped_steps.numpy())

    def count_steps(self, steps):
        """Says how many steps have been done in all; the optimizer counts those it applied."""
        self._skipped_steps.assign(steps - int(self.model.optimizer.iterations.numpy()))

    def restore(self):
        """Restores the newest checkpoint, if there is one.

        Returns:
            The number of steps done.

        Raises:
            ValueError: if it is of another model or optimizer.
        """
        path = self._newest.latest_checkpoint
        if path is not None:
            try:
                status = self._checkpoint.restore(path)
                status.assert_existing_objects_matched()
            except (AssertionError, ValueError, tf.errors.OpError) as error:
                raise ValueError(
                    f"{path}: not a checkpoint of this model and optimizer; give another "
                    "--workdir, or the settings that the run began with"
                ) from error
        return self.step

    def save(self):
        """Saves the newest checkpoint and drops the oldest."""
        self._newest.save(checkpoint_number=self.step)

    def save_if_best(self, score):
        """Saves the best checkpoint if ``score`` is above all before; says whether it was."""
        # Not a number is above nothing.
        if not score > float(self.best_score.numpy()):
            return False
        self.best_score.assign(score)
        self._best.save(checkpoint_number=self.step)
        return True


def check_same_shards(path, counts):
    """Writes down the training shards of a run, or compares with what was written.

    Args:
        path: of a JSON file, a list of the shards' names and numbers of records in order.
        counts: the number of records of each shard, by path; their folder may change.

    Raises:
        ValueError: if the shards are others, with which the run would not go on but begin
            somewhere in other data.
    """
    shards = [[os.path.basename(shard), counts[shard]] for shard in sorted(counts)]
    if not path.exists():
        write_whole(path, json.dumps(shards) + "\n")
        return
    before = read_json(path, list)
    if shards != before:
        raise ValueError(
            f"--train-data: {_difference(dict(before), dict(shards))} since the run in "
            f"{path.parent} began; give its shards again, or another --workdir"
        )


def _difference(before, now):
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            return f"{name} is gone"
        if name not in before:
            return f"{name} is new"
        if before[name] != now[name]:
            return f"{name} holds {now[name]:,} records, not {before[name]:,},"
    return "the shards have changed places"
