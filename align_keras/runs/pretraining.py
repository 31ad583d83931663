"""A pretraining run: opens its data and its model, trains, evaluates, reports."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from align_keras import distribution, progress
from align_keras.data.cached_pairs import CachedPairs
from align_keras.paths import AnyPath
from align_keras.runs import alarms, feature_cache, report, trackers
from align_keras.runs import pretraining_evaluation as evaluation
from align_keras.runs.executions import Executions
from align_keras.runs.frozen_towers import frozen_towers
from align_keras.runs.log import TrainingLog
from align_keras.runs.log_lines import lacks_evaluation
from align_keras.runs.memory import keep_freed_memory
from align_keras.runs.model import freeze
from align_keras.runs.pretraining_batches import count_skipped, training_data
from align_keras.runs.pretraining_evaluation import Evaluated, Metrics
from align_keras.runs.pretraining_run import PretrainingRun, open_run, restore
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.skipped import check_finished, skipped_before
from align_keras.runs.training import train
from align_keras.wording import counted


def pretrain(
    settings: PretrainSettings,
    command: str = "",
    ended: Callable[[AnyPath, PretrainSettings], Any] = lambda *_: None,
) -> Metrics:
    """Trains, evaluates and reports.

    Args:
        settings: the run's settings; if its directory holds a run, that run continues.
        command: the command that was called, for the model's card.
        ended: called at the end with the run's directory and its settings; with several workers,
            only in the first.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        InputError: if a setting is wrong; the error names it.
        DivergedError: if the run diverged.
        LostDataError: if too many pairs were skipped, or a shard has changed.
        Interrupted: after a signal, if the caller handles signals.
    """
    started = time.perf_counter()
    keep_freed_memory()  # before TensorFlow starts its threads
    with contextlib.ExitStack() as held:
        run = open_run(settings, held)
        metrics = _pretrain(run, started, command)
    if distribution.worker_place(run.strategy)[0] == 0:
        ended(run.workdir, run.settings)
    return metrics


def _pretrain(run: PretrainingRun, started: float, command: str) -> Metrics:
    first_step = restore(run)
    at_start = evaluation.evaluate_start(run, first_step)
    steps, interval = run.settings.run.steps, run.settings.run.eval_every
    lacks = lacks_evaluation(run.workdir, first_step, interval, steps)
    if first_step == steps:
        limit = run.settings.data.max_skipped_share
        check_finished(run.workdir, steps, limit, run.settings.run.batch_size)
    evaluated = None
    if first_step < steps or lacks:
        settings, is_chief = run.settings, not distribution.worker_place(run.strategy)[0]
        with trackers.tracking(
            settings.run.tracker, run.workdir, settings.flat(), is_chief
        ) as run.track:
            evaluated = fit(run, at_start, lacks)
    metrics, chance, held_out = evaluation.evaluate_and_save(run, evaluated, command)
    seconds = float(run.checkpoints.seconds.numpy())
    pairs = int(run.checkpoints.timed_pairs.numpy())
    metrics["train_pairs_per_second"] = pairs / seconds if seconds else None
    metrics["skipped_pairs"] = skipped_before(run.workdir, steps)
    metrics["resumed_at_step"] = first_step
    if at_start:
        metrics["start"] = at_start
    metrics["sources"] = [own.as_dict() for own in run.used(steps)]
    batch_size = run.settings.run.batch_size
    report.write_report(
        run.workdir, run.data.evaluation, metrics, chance, held_out, batch_size, started
    )
    return metrics


def fit(run: PretrainingRun, at_start: Metrics, evaluates_first: bool = False) -> Evaluated | None:
    """Trains from the checkpoint's step to the last one.

    Args:
        run: an opened run.
        at_start: metrics of ``evaluate_start``, for the log.
        evaluates_first: whether to evaluate at the checkpoint's step before training; see
            ``lacks_evaluation``.

    Returns:
        The evaluation after the last step.
    """
    evaluated = None
    steps, batch_size = run.settings.run.steps, run.settings.run.batch_size
    used = run.used(steps)
    progress.tell(report.format_start(run.workdir, steps, batch_size, used))
    for line in alarms.of_epochs(steps, batch_size, used):
        progress.tell(line)
    ends = {last or steps for last in frozen_towers(run.settings.model.freeze).values()}
    watch = alarms.Alarms(batch_size, run.model.min_temperature)
    cached = feature_cache.open_cache(run.settings, run.data, run.model, run.workdir)
    for end in sorted(ends | {steps}):
        if run.checkpoints.step < end or end == steps:
            freeze(run.model, run.settings.model, run.checkpoints.step)
            evaluated = _fit_phase(run, at_start, evaluates_first, end, watch, cached)
            evaluates_first = False
    return evaluated


def _fit_phase(
    run: PretrainingRun,
    at_start: Metrics,
    evaluates_first: bool,
    until: int,
    watch: alarms.Alarms,
    cached: CachedPairs | None,
) -> Evaluated | None:
    """Trains up to a step with the same frozen towers, and saves a checkpoint there."""
    settings, checkpoints = run.settings.run, run.checkpoints
    source = run.settings, run.data, run.strategy, checkpoints.step
    with progress.working("preparing the input pipeline"):
        dataset = training_data(*source, cached)
        in_run = count_skipped(*source, run.model, run.workdir)
    log = TrainingLog(
        run.workdir,
        checkpoints,
        settings.steps,
        settings.batch_size,
        settings.log_every,
        in_run,
        alarms=watch,
        track=run.track,
        used=run.used_metrics,
    )
    if at_start and checkpoints.step == 0:
        log.write("eval", at_start)

    evaluated = None

    def evaluate() -> None:
        nonlocal evaluated
        if log.step % settings.eval_every and log.step < settings.steps:
            return  # a phase ends here, and no evaluation is due
        found = evaluation.evaluate_and_log(run, log)
        evaluated = found if log.step == settings.steps else None

    def save() -> None:
        if checkpoints.saved_step != log.step:
            log.save()

    if evaluates_first:
        evaluate()
        log.save()
    if checkpoints.step == settings.steps:
        return evaluated
    try:
        train(
            run.model,
            dataset,
            log,
            [(settings.eval_every, evaluate), (settings.checkpoint_every, save)],
            "lower <learning_rate> or set <global_clipnorm>, and give the command again: it "
            "resumes at the last checkpoint",
            Executions(settings.steps_per_execution, settings.profile),
            until,
        )
    except tf.errors.OpError as error:
        # TensorFlow does not say which data failed.
        in_run.explain(error, checkpoints.saved_step)
        raise
    finally:
        run.model.observed = None
    if in_run.count:
        print(f"skipped {counted(in_run.count, 'corrupt or unreadable pair')}", flush=True)
    return evaluated
