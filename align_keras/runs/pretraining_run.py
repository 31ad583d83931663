"""An opened pretraining run: its data, its model, its checkpoints."""

import contextlib
import dataclasses

import keras
import tensorflow as tf

from align_keras import distribution, progress
from align_keras.errors import concerning
from align_keras.files import write_whole
from align_keras.models import precision
from align_keras.models.dual_encoder import AlignDualEncoder
from align_keras.paths import AnyPath
from align_keras.runs import mixed_sources, pretraining_data, shard_lists, trackers
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.model import make_model, with_gelu
from align_keras.runs.pretraining_data import RunData
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.workdir import check_training_data
from align_keras.runs.worker_folder import open_folder

#: Files that a run writes into its directory after ``settings.json``, which marks it as a run.
WRITTEN = (
    *("preset", "checkpoints", "features", "start.json", "log.jsonl", "skipped.json"),
    *("metrics.json", "curves.png", "retrieval.png", "captions.png", "trackers.json"),
)


@dataclasses.dataclass
class PretrainingRun:
    """An opened run."""

    settings: PretrainSettings
    workdir: AnyPath
    strategy: tf.distribute.Strategy
    data: RunData
    model: AlignDualEncoder
    checkpoints: RunCheckpoints
    track: trackers.Track = trackers.nowhere

    def used(self, step: int) -> list[mixed_sources.Used]:
        """The pairs and epochs of each source after a step."""
        return self.data.sources.used(step, *self._readers)

    def used_metrics(self, step: int) -> dict[str, float]:
        """The result of ``used`` as fields of the log."""
        return self.data.sources.metrics(step, *self._readers)

    @property
    def _readers(self) -> tuple[int, int]:
        return self.settings.run.batch_size, distribution.worker_place(self.strategy)[1]


def open_run(
    settings: PretrainSettings, held: contextlib.ExitStack | None = None
) -> PretrainingRun:
    """Opens data and model; every fault in the settings is reported before it returns.

    Args:
        settings: the run's settings.
        held: as in ``open_workdir``.
    """
    settings.check()
    # This precedes reading a model, since TensorFlow can set up several workers only before its
    # first operation.
    with concerning("strategy"):
        strategy = distribution.make_strategy(settings.run.strategy, settings.run.tpu)
    data = pretraining_data.with_sizes(settings.data, settings.model.model)
    settings = dataclasses.replace(settings, data=data, model=with_gelu(settings.model))
    settings.check()
    workdir = open_folder(settings, strategy, WRITTEN, held)
    keras.utils.set_random_seed(settings.run.seed)
    run_data = pretraining_data.open_data(
        data, settings.model, workdir, settings.run.batch_size, settings.run.seed
    )
    with (
        progress.working("building the model"),
        strategy.scope(),
        precision.dtype_policy(settings.model.precision),
    ):
        model = make_model(
            settings.model, settings.optimizer, run_data.preprocessor, settings.run.steps
        )
        checkpoints = RunCheckpoints(workdir / "checkpoints", model)
    check_training_data(
        workdir / "train_shards.json",
        shard_lists.list_shards(run_data.counts),
        shard_lists.difference_of_shards,
    )
    write_whole(workdir / "settings.json", settings.as_json())
    return PretrainingRun(settings, workdir, strategy, run_data, model, checkpoints)


def restore(run: PretrainingRun) -> int:
    """Restores the newest intact checkpoint; returns its step, or 0 if there is none."""
    step = run.checkpoints.restore(run.strategy)
    if step:
        print(f"resuming {run.workdir} at step {step:,} of {run.settings.run.steps:,}", flush=True)
    elif (run.workdir / "log.jsonl").exists():
        print(f"no checkpoint in {run.workdir}: the run starts again at step 0", flush=True)
    return step
