"""Runs a short pretraining and damages some of its shards after a step."""

import glob
import os
import shutil

import pytest
from commands import make_quick

from align_keras.runs import command, log, pretraining
from align_keras.runs.pretraining_settings import PretrainSettings

#: Ways in which shards are damaged while a run reads them.
DAMAGE = {
    "nothing": lambda shards: None,
    "deleted": lambda shards: [os.remove(shard) for shard in shards[:2]],
    "truncated": lambda shards: [os.truncate(shard, 5_000) for shard in shards[:2]],
    "a folder": lambda shards: [(os.remove(shard), os.mkdir(shard)) for shard in shards[:2]],
    "another shard": lambda shards: shutil.copy(shards[1], shards[0]),
    "touched": lambda shards: [os.utime(shard) for shard in shards],
}


def run(workdir, pattern, damage, step, bound=0.01):
    """Trains 12 steps of 20 pairs on the shards of a pattern."""
    shards = sorted(glob.glob(pattern))
    settings = PretrainSettings().replace(
        train_data=pattern,
        workdir=workdir,
        preset="tiny",
        batch_size=20,
        steps=12,
        warmup_steps=1,
        image_size=16,
        resize_size=20,
        sequence_length=12,
        vocabulary_size=300,
        shuffle_buffer=10,
        initial_temperature=0.1,
        checkpoint_every=4,
        log_every=1,
        max_skipped_share=bound,
    )

    class Damaging(log.TrainingLog):
        """Damages the shards after the given step."""

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.step == step:
                DAMAGE[damage](shards)

    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        patch.setattr(pretraining, "TrainingLog", Damaging)
        command.run("pretrain.py", lambda: settings, pretraining.pretrain)
