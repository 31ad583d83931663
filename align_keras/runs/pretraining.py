"""A pretraining run: opens its data and its model, trains, evaluates, reports."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from align_keras import distribution, optimizers, signals
from align_keras.data import pipeline
from align_keras.errors import concerning
from align_keras.evaluation.metrics import ACCURACIES, RECALLS
from align_keras.files import read_json, whole_folder, write_whole
from align_keras.models import precision
from align_keras.models.dual_encoder import AlignDualEncoder
from align_keras.runs import pretraining_data, report
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.log import TrainingLog, lacks_evaluation, read_log
from align_keras.runs.memory import keep_freed_memory
from align_keras.runs.model import make_model, with_gelu
from align_keras.runs.pretraining_data import RunData
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.training import train
from align_keras.runs.workdir import check_training_data
from align_keras.runs.worker_folder import open_folder

Metrics = dict[str, Any]
#: What a run writes into its directory after ``settings.json``, by which a later one knows it.
WRITTEN = (
    "preset",
    "checkpoints",
    "start.json",
    "log.jsonl",
    "metrics.json",
    "curves.png",
    "retrieval.png",
)


@dataclasses.dataclass
class PretrainingRun:
    """An opened run."""

    settings: PretrainSettings
    workdir: Path
    strategy: tf.distribute.Strategy
    data: RunData
    model: AlignDualEncoder
    checkpoints: RunCheckpoints


def pretrain(settings: PretrainSettings) -> Metrics:
    """Trains, evaluates and reports.

    Args:
        settings: of the run; if its directory holds a run, that goes on.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        InputError: names the setting that is wrong.
        DivergedError: if the run diverged.
        Interrupted: after a signal, if the caller handles signals.
    """
    started = time.perf_counter()
    keep_freed_memory()  # before TensorFlow starts its threads
    with contextlib.ExitStack() as held:
        return _pretrain(open_run(settings, held), started)


def _pretrain(run: PretrainingRun, started: float) -> Metrics:
    first_step = restore(run)
    start = evaluate_start(run, first_step)
    steps, interval = run.settings.run.steps, run.settings.run.eval_every
    lacks = lacks_evaluation(run.workdir, first_step, interval, steps)
    if first_step < steps or lacks:
        fit(run, start, lacks)
    metrics, chance, held_out = evaluate_and_save(run)
    seconds = float(run.checkpoints.seconds.numpy())
    pairs = int(run.checkpoints.timed_pairs.numpy())
    metrics["train_pairs_per_second"] = pairs / seconds if seconds else None
    # Both are about this process, which began at that step.
    metrics["resumed_at_step"] = first_step
    metrics["seconds"] = time.perf_counter() - started
    if start:
        metrics["start"] = start
    write_report(run, metrics, chance, held_out)
    return metrics


def open_run(
    settings: PretrainSettings, held: contextlib.ExitStack | None = None
) -> PretrainingRun:
    """Opens data and model; finds all that can be wrong with the settings before it returns.

    Args:
        settings: of the run.
        held: as of ``open_workdir``.
    """
    data = pretraining_data.with_sizes(settings.data, settings.model.model)
    settings = dataclasses.replace(settings, data=data)
    settings.check()
    settings = dataclasses.replace(settings, model=with_gelu(settings.model))
    with concerning("strategy"):
        strategy = distribution.make_strategy(settings.run.strategy, settings.run.tpu)
    workdir = open_folder(settings, strategy, WRITTEN, held)
    keras.utils.set_random_seed(settings.run.seed)
    run_data = pretraining_data.open_data(
        data, settings.model, workdir, settings.run.batch_size, settings.run.seed
    )
    with strategy.scope(), precision.dtype_policy(settings.model.precision):
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
    """Restores the newest checkpoint; returns its step, 0 without one."""
    step = run.checkpoints.restore()
    with concerning("workdir"):
        distribution.check_same_step(run.strategy, step)
    if step:
        print(f"resuming {run.workdir} at step {step:,} of {run.settings.run.steps:,}", flush=True)
    return step


def evaluate_start(run: PretrainingRun, step: int) -> Metrics:
    """Metrics of the trained model that the run starts from, before its first step here.

    They are kept for when the run resumes.

    Returns:
        Empty if it starts from none, or if it resumes with other held-out data.
    """
    if not run.settings.model.model:
        return {}
    path = run.workdir / "start.json"
    data = run.settings.data
    held_out = {
        "eval_data": data.eval_data,
        "zero_shot_data": data.zero_shot_data,
        "prompts": list(data.prompts),
    }
    if step == 0:
        metrics, _, _ = evaluate_held_out(run)
        write_whole(path, json.dumps({"held_out": held_out, "metrics": metrics}, indent=2) + "\n")
        return metrics
    before = read_json(path, dict) if path.exists() else {}
    if before.get("held_out") != held_out:
        print(f"no figures of the starting model on these held-out data in {path}", flush=True)
        return {}
    return before["metrics"]


def fit(run: PretrainingRun, start: Metrics, evaluates_first: bool = False) -> None:
    """Trains from the checkpoint's step to the last one.

    Args:
        run: an opened run.
        start: metrics of ``evaluate_start``, for the log.
        evaluates_first: whether to evaluate at the checkpoint's step, as ``lacks_evaluation``.
    """
    settings, checkpoints = run.settings.run, run.checkpoints
    skipped = pipeline.SkippedPairs()
    log = TrainingLog(
        run.workdir, checkpoints, settings.steps, settings.batch_size, settings.log_every, skipped
    )
    if start and checkpoints.step == 0:
        log.write("eval", start)

    # Several workers must end after the same step, and not in the evaluation of one.
    alone = distribution.worker_place(run.strategy)[1] == 1
    interruptible = signals.interruptible if alone else contextlib.nullcontext

    def evaluate() -> None:
        with optimizers.averaged_weights(run.model), interruptible():
            metrics, _, _ = evaluate_held_out(run)
        log.write("eval", metrics)
        recalls = [metrics[name] for name in RECALLS]
        if None not in recalls:
            checkpoints.save_if_best(float(np.mean(recalls)))

    if evaluates_first:
        evaluate()
        log.save()
    if checkpoints.step == settings.steps:
        return
    try:
        train(
            run.model,
            training_data(run, skipped),
            log,
            [(settings.eval_every, evaluate), (settings.checkpoint_every, log.save)],
            "lower <learning_rate> or set <global_clipnorm> and resume, which goes on from the "
            "last checkpoint",
        )
    except tf.errors.OpError:
        # TensorFlow does not say which data it was.
        with concerning("train_data"):
            skipped.check()
        raise
    if skipped.count:
        print(f"skipped {skipped.count:,} corrupt or unreadable pairs", flush=True)


def training_data(run: PretrainingRun, skipped: pipeline.SkippedPairs) -> Any:
    """The batches from the checkpoint's step on, shared out to workers and replicas."""
    first_step, settings = run.checkpoints.step, run.settings

    def share_of(context: tf.distribute.InputContext) -> tf.data.Dataset:
        workers, replicas = context.num_input_pipelines, context.num_replicas_in_sync
        with concerning("batch_size"):
            return pipeline.training_dataset(
                run.data.counts,
                run.data.preprocessor,
                context.get_per_replica_batch_size(settings.run.batch_size),
                seed=settings.run.seed,
                start_batch=first_step * replicas // workers,
                shuffle_buffer=settings.data.shuffle_buffer,
                worker=context.input_pipeline_id,
                num_workers=workers,
                skipped=skipped,
            )

    return run.strategy.distribute_datasets_from_function(share_of)


def evaluate_held_out(run: PretrainingRun) -> tuple[Metrics, Metrics, dict[str, Any] | None]:
    """Evaluates on the held-out data.

    Returns:
        The metrics, None for metrics that the data does not support; their chance; and the
        embeddings of the held-out pairs, as of ``HeldOutPairs.embed``.
    """
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


def evaluate_and_save(run: PretrainingRun) -> tuple[Metrics, Metrics, dict[str, Any] | None]:
    """Evaluates as ``evaluate_held_out``, with the averaged weights, and saves the preset."""
    with optimizers.averaged_weights(run.model):
        metrics, chance, held_out = evaluate_held_out(run)
        with whole_folder(run.workdir / "preset", replace=True) as folder:
            run.model.save_to_preset(folder)
    metrics["num_pairs"] = len(held_out["rows"]) if held_out else 0
    metrics["num_classes"] = len(run.data.zero_shot.class_names) if run.data.zero_shot else 0
    return metrics, chance, held_out


def write_report(
    run: PretrainingRun, metrics: Metrics, chance: Metrics, held_out: dict[str, Any] | None
) -> None:
    """Writes ``metrics.json``, draws the pictures and prints the closing table."""
    write_whole(run.workdir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    pictures = ["curves.png"]
    report.draw_curves(run.workdir / "curves.png", read_log(run.workdir))
    if run.data.evaluation and held_out:
        pictures.append("retrieval.png")
        report.draw_retrieval_sheet(run.workdir / "retrieval.png", run.data.evaluation, held_out)
    print(report.format_table(metrics, chance))
    files = ", ".join(["checkpoints/", "logs/", "preset/", "metrics.json", *pictures])
    print(f"run directory: {run.workdir} ({files})")
