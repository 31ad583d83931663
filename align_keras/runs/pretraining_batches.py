"""The batches of a pretraining run, and the count of lost pairs."""

from typing import Any

import tensorflow as tf

from align_keras.data import pipeline
from align_keras.data.cached_pairs import CachedPairs
from align_keras.errors import concerning
from align_keras.models.contrastive_model import ContrastiveModel
from align_keras.paths import AnyPath
from align_keras.runs.lost_records import LostRecords
from align_keras.runs.pretraining_data import RunData
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.skipped import SkippedInRun


def training_data(
    settings: PretrainSettings,
    data: RunData,
    strategy: tf.distribute.Strategy,
    first_step: int,
    cached: CachedPairs | None = None,
) -> Any:
    """Training batches, starting at a given step, distributed to workers and replicas.

    Args:
        settings: the run's settings.
        data: the run's data.
        strategy: the run's strategy.
        first_step: number of steps already done.
        cached: pairs with features instead of images; None to read the shards.
    """

    def share_of(context: tf.distribute.InputContext) -> tf.data.Dataset:
        workers, replicas = context.num_input_pipelines, context.num_replicas_in_sync
        batch_size = context.get_per_replica_batch_size(settings.run.batch_size)
        place = {
            "seed": settings.run.seed,
            "start_batch": first_step * replicas // workers,
            "worker": context.input_pipeline_id,
            "num_workers": workers,
        }
        if cached:
            # Features of weighted sources are not cached, so there is only one source.
            groups = next(iter(data.sources.groups), None)
            return cached.batches(batch_size, groups=groups, **place)
        with concerning("batch_size"):
            return pipeline.training_dataset(
                data.counts,
                data.preprocessor,
                batch_size,
                shuffle_buffer=settings.data.shuffle_buffer,
                sources=data.sources.mixed,
                groups=data.sources.groups,
                **place,
            )

    return strategy.distribute_datasets_from_function(share_of)


def count_skipped(
    settings: PretrainSettings,
    data: RunData,
    strategy: tf.distribute.Strategy,
    first_step: int,
    model: ContrastiveModel,
    workdir: AnyPath,
) -> SkippedInRun:
    """Counts the pairs lost by ``training_data``, and watches the shards.

    Args:
        settings: as in ``training_data``.
        data: as in ``training_data``.
        strategy: as in ``training_data``.
        first_step: as in ``training_data``.
        model: the run's model; its training step counts lost pairs until ``observed`` is reset.
        workdir: the directory of this process.
    """
    lost = LostRecords(sorted(data.counts), strategy)
    model.observed = lost.add
    return SkippedInRun(
        workdir,
        lambda _: lost.taken(),
        settings.data.max_skipped_share,
        data.sources.total,
        settings.run.batch_size,
        first_step,
        strategy=strategy,
        look=data.counts.watched.look,
        files=sorted(data.counts),
    )
