"""A pretraining run: opens its data and its model, trains, evaluates, reports."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from align_keras import distribution, optimizers, progress, signals
from align_keras.data.cached_pairs import CachedPairs
from align_keras.errors import InputError, concerning
from align_keras.evaluation.metrics import ACCURACIES, RECALLS
from align_keras.files import write_whole
from align_keras.models import precision
from align_keras.models.dual_encoder import AlignDualEncoder
from align_keras.paths import AnyPath
from align_keras.runs import alarms, cards, feature_cache, pretraining_data, report, start, trackers
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.executions import Executions
from align_keras.runs.frozen_towers import frozen_towers
from align_keras.runs.log import TrainingLog
from align_keras.runs.log_lines import lacks_evaluation
from align_keras.runs.memory import keep_freed_memory
from align_keras.runs.model import freeze, make_model, with_gelu
from align_keras.runs.pretraining_batches import count_skipped, training_data
from align_keras.runs.pretraining_data import RunData
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.skipped import check_finished, skipped_before
from align_keras.runs.training import train
from align_keras.runs.workdir import check_training_data
from align_keras.runs.worker_folder import open_folder
from align_keras.wording import counted

Metrics = dict[str, Any]
#: The metrics (None if the data do not support one), their level of chance, and the embeddings
#: of the held-out pairs, as returned by ``HeldOutPairs.embed``.
Evaluated = tuple[Metrics, Metrics, dict[str, Any] | None]
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
        InputError: names the setting that is wrong.
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
    at_start = evaluate_start(run, first_step)
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
    metrics, chance, held_out = evaluate_and_save(run, evaluated, command)
    seconds = float(run.checkpoints.seconds.numpy())
    pairs = int(run.checkpoints.timed_pairs.numpy())
    metrics["train_pairs_per_second"] = pairs / seconds if seconds else None
    metrics["skipped_pairs"] = skipped_before(run.workdir, steps)
    # Both count from that step, where this process began.
    metrics["resumed_at_step"] = first_step
    metrics["seconds"] = time.perf_counter() - started
    if at_start:
        metrics["start"] = at_start
    batch_size = run.settings.run.batch_size
    report.write_report(run.workdir, run.data.evaluation, metrics, chance, held_out, batch_size)
    return metrics


def open_run(
    settings: PretrainSettings, held: contextlib.ExitStack | None = None
) -> PretrainingRun:
    """Opens data and model; every fault in the settings is reported before it returns.

    Args:
        settings: the run's settings.
        held: as in ``open_workdir``.
    """
    settings.check()
    # Before a model is read: TensorFlow sets up several workers only before its first operation.
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
        pretraining_data.list_shards(run_data.counts),
        pretraining_data.difference_of_shards,
    )
    write_whole(workdir / "settings.json", settings.as_json())
    return PretrainingRun(settings, workdir, strategy, run_data, model, checkpoints)


def restore(run: PretrainingRun) -> int:
    """Restores the newest sound checkpoint; returns its step, 0 without one."""
    step = run.checkpoints.restore(run.strategy)
    if step:
        print(f"resuming {run.workdir} at step {step:,} of {run.settings.run.steps:,}", flush=True)
    elif (run.workdir / "log.jsonl").exists():
        print(f"no checkpoint in {run.workdir}: the run starts again at step 0", flush=True)
    return step


def evaluate_start(run: PretrainingRun, step: int) -> Metrics:
    """Metrics of the trained model that the run starts from, before its first step here.

    They are kept for when the run resumes.

    Returns:
        Empty if it starts from none, or if it resumes with other held-out data.
    """
    if not run.settings.model.model:
        return {}
    data = run.settings.data
    held_out = {
        "eval_data": data.eval_data,
        "zero_shot_data": data.zero_shot_data,
        "prompts": list(data.prompts),
    }
    if step:
        return start.read(run.workdir, held_out)
    metrics, _, _ = evaluate_held_out(run)
    start.write(run.workdir, held_out, metrics)
    return metrics


def fit(run: PretrainingRun, at_start: Metrics, evaluates_first: bool = False) -> Evaluated | None:
    """Trains from the checkpoint's step to the last one.

    Args:
        run: an opened run.
        at_start: metrics of ``evaluate_start``, for the log.
        evaluates_first: whether to evaluate at the checkpoint's step, as ``lacks_evaluation``.

    Returns:
        The evaluation after the last step.
    """
    evaluated = None
    steps, batch_size = run.settings.run.steps, run.settings.run.batch_size
    pairs = sum(run.data.counts.values())
    progress.tell(report.format_start(run.workdir, steps, batch_size, pairs))
    if line := alarms.of_epochs(steps, batch_size, pairs):
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
    parts = run.settings, run.data, run.strategy, checkpoints.step
    with progress.working("preparing the input pipeline"):
        dataset = training_data(*parts, cached)
        in_run = count_skipped(*parts, run.model, run.workdir)
    log = TrainingLog(
        run.workdir,
        checkpoints,
        settings.steps,
        settings.batch_size,
        settings.log_every,
        in_run,
        alarms=watch,
        track=run.track,
    )
    if at_start and checkpoints.step == 0:
        log.write("eval", at_start)

    evaluated = None

    def evaluate() -> None:
        nonlocal evaluated
        if log.step % settings.eval_every and log.step < settings.steps:
            return  # a phase ends
        found = evaluate_and_log(run, log)
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
            "lower <learning_rate> or set <global_clipnorm> and resume, which continues from the "
            "last checkpoint",
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


def evaluate_and_log(run: PretrainingRun, log: TrainingLog) -> Evaluated:
    """Evaluates while a run trains; keeps a checkpoint if it is the best."""
    several = distribution.worker_place(run.strategy)[1] > 1
    if several:
        # A signal ends one worker's evaluation, and the others fail in the next step: all have this
        # checkpoint to resume at.
        log.save()
    try:
        with (
            progress.working("evaluating on held-out pairs"),
            optimizers.averaged_weights(run.model),
            signals.interruptible(),
        ):
            evaluated = evaluate_held_out(run)
    except InputError:  # the held-out data have changed; the weights are sound
        log.save()
        raise
    metrics, chance, _ = evaluated
    log.write("eval", metrics)
    if line := report.format_evaluation(log.step, metrics, chance):
        log.tell(line)
    recalls = [metrics[name] for name in RECALLS]
    if None not in recalls:
        log.skipped.keep(log.step)  # a run whose newest checkpoints are damaged resumes at the best
        with progress.working("saving the checkpoint"):
            run.checkpoints.save_if_best(float(np.mean(recalls)))
    if several:
        log.save()  # once more, with the best score
    return evaluated


def evaluate_held_out(run: PretrainingRun) -> Evaluated:
    """Evaluates on the held-out data."""
    data, model = run.data, run.model
    metrics: Metrics = dict.fromkeys(RECALLS + ACCURACIES)
    chance: Metrics = {}
    held_out = None
    if data.evaluation:
        with concerning("eval_data"):
            held_out = data.evaluation.embed(model)
        recalls, recall_chance = data.evaluation.retrieval(held_out)
        metrics, chance = metrics | recalls, chance | recall_chance
    if data.zero_shot:
        embedded = held_out
        if embedded is None or data.zero_shot is not data.evaluation:
            with concerning("zero_shot_data"):
                embedded = data.zero_shot.embed(model)
        prompts = run.settings.data.prompts
        accuracy, accuracy_chance = data.zero_shot.zero_shot(model, embedded, prompts)
        metrics, chance = metrics | accuracy, chance | accuracy_chance
    return metrics, chance, held_out


def evaluate_and_save(
    run: PretrainingRun, evaluated: Evaluated | None, command: str = ""
) -> Evaluated:
    """Evaluates with the averaged weights, unless ``fit`` did, and saves them as the preset."""
    with optimizers.averaged_weights(run.model):
        metrics, chance, held_out = evaluated or evaluate_held_out(run)
        metrics["num_pairs"] = len(held_out["rows"]) if held_out else 0
        metrics["num_classes"] = len(run.data.zero_shot.class_names) if run.data.zero_shot else 0
        with progress.working("saving the preset"):
            cards.save_preset(run, metrics, chance, command)
    return metrics, chance, held_out
