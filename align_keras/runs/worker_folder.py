"""The directory of each worker of a pretraining run."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from align_keras import distribution, paths
from align_keras.errors import InputError, concerning
from align_keras.runs import pretraining_data
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.workdir import open_workdir


def open_folder(
    settings: PretrainSettings,
    strategy: tf.distribute.Strategy,
    written: Sequence[str],
    held: contextlib.ExitStack | None,
) -> Path:
    """Opens the directory of this process.

    Worker 0 uses the run's directory; every other worker uses a subfolder.

    Args:
        settings: of the run.
        strategy: knows the workers.
        written: what a run writes there, as of ``open_workdir``.
        held: likewise.

    Raises:
        InputError: as ``open_workdir``, or if a batch does not divide among the workers.
    """
    with concerning("batch_size"):
        share = distribution.share_of(strategy, settings.run.batch_size)
    micro_batch_size = settings.optimizer.micro_batch_size
    if micro_batch_size and share % micro_batch_size:
        raise InputError(
            f"{micro_batch_size} does not divide the {share} pairs of a replica",
            remedy=f"choose a divisor of {share}",
            setting="micro_batch_size",
        )
    worker, workers = distribution.worker_place(strategy)
    if workers > 1 and not settings.run.workdir:
        raise InputError(
            "several workers need one", remedy="give the same to each", setting="workdir"
        )
    part = f"worker-{worker}" if worker else ""
    if settings.run.workdir:
        # Before the settings are compared: such a run resumes with none.
        own = paths.local(settings.run.workdir) / part
        pretraining_data.check_order(own / "train_shards.json")
    return open_workdir(settings, settings.run.workdir, part, written=written, held=held)
