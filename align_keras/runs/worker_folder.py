"""The directory and the settings of each worker of a pretraining run."""

import contextlib
import zlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from align_keras import distribution, paths
from align_keras.errors import InputError, concerning
from align_keras.runs import shard_lists
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.settings import Settings
from align_keras.runs.workdir import open_workdir


def open_folder(
    settings: PretrainSettings,
    strategy: tf.distribute.Strategy,
    written: Sequence[str],
    held: contextlib.ExitStack | None,
) -> paths.AnyPath:
    """Opens the directory of this process.

    Worker 0 uses the run's directory; every other worker uses a subfolder.

    Args:
        settings: the run's settings.
        strategy: the run's strategy, which knows the workers.
        written: as in ``open_workdir``.
        held: as in ``open_workdir``.

    Raises:
        InputError: as in ``open_workdir``; if the workers have different settings; or if a batch
            cannot be divided among them.
    """
    check_same_settings(settings, strategy)
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
            "several workers need a common directory",
            remedy="give the same to each",
            setting="workdir",
        )
    part = f"worker-{worker}" if worker else ""
    if settings.run.workdir:
        # Checked before the settings are compared: a run that read the records in another order
        # cannot be resumed with any settings.
        with concerning("workdir"):
            own = paths.path_of(settings.run.workdir) / part
            shard_lists.check_order(own / "train_shards.json")
    return open_workdir(settings, settings.run.workdir, part, written=written, held=held)


def check_same_settings(settings: Settings, strategy: tf.distribute.Strategy) -> None:
    """Compares the settings of all workers.

    Workers exchange numbers at certain steps, such as those with a line of the log. A worker with
    other settings would exchange numbers at other steps, and all workers would wait forever.

    Args:
        settings: this worker's settings; every worker must call this function.
        strategy: the run's strategy, which knows the workers.

    Raises:
        InputError: in every worker, if a setting differs. Paths may differ.
    """
    values = settings.of_all_workers()
    if _is_same(strategy, values):
        return
    first, *others = [name for name, value in values.items() if not _is_same(strategy, value)]
    more = "".join(f", <{name}>" for name in others)
    raise InputError(
        f"{values[first]} here, but different on another worker",
        remedy="give all workers the same value" + (f", also for {more[2:]}" if more else ""),
        setting=first,
    )


def _is_same(strategy: tf.distribute.Strategy, value: Any) -> bool:
    found = distribution.gather_from_workers(strategy, zlib.crc32(repr(value).encode()))
    return len(set(found)) == 1
