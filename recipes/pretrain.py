r"""Pretrains ALIGN end to end: shards of image-text pairs in, an evaluated model out.

    python recipes/pretrain.py
    python recipes/pretrain.py --train-data='DIR/train-*.tfrecord' \
        --eval-data='DIR/val-*.tfrecord' --workdir=DIR
    python recipes/pretrain.py --experiment=cc3m_b3_mini --strategy=tpu ...
    python recipes/pretrain.py --model=RUN --train-data=... --workdir=ANOTHER

Without --train-data the default experiment, quickstart, renders its own scenes.
"""

import dataclasses
import json
import re
import shutil
import sys
import time
from pathlib import Path

from quiet_tensorflow import load_quietly

load_quietly()

import keras
import numpy as np
import tensorflow as tf
import tyro
from experiments import (
    BROUGHT_BY_MODEL,
    EXPERIMENTS,
    PAPER_SIZES,
    PretrainSettings,
    flag_of,
    pick_experiment,
)
from run_data import open_data, with_sizes
from run_model import make_model

from align_keras import distribution, optimizers
from align_keras.data import pipeline
from align_keras.models import precision
from align_keras.runs import checkpointing, monitoring, reporting


def main(settings):
    """Trains, evaluates and reports; returns what ``metrics.json`` holds."""
    started = time.perf_counter()
    settings = with_sizes(settings)
    settings.check()
    strategy = distribution.make_strategy(settings.strategy, settings.tpu)
    workdir = find_workdir(settings, strategy)
    keras.utils.set_random_seed(settings.seed)
    data = open_data(settings, workdir)
    with strategy.scope(), precision.dtype_policy(settings.precision):
        model = make_model(settings, data.preprocessor)
        checkpoints = checkpointing.RunCheckpoints(workdir / "checkpoints", model)
    checkpointing.check_same_shards(workdir / "train_shards.json", data.counts)
    # All that can be wrong with the settings is known by now.
    checkpointing.write_whole(workdir / "settings.json", settings.as_json())
    step = checkpoints.restore()
    distribution.check_same_step(strategy, step)
    if step:
        print(f"resuming {workdir} at step {step:,} of {settings.steps:,}", flush=True)
    start = evaluate_start(settings, workdir, data, model, step)
    if step < settings.steps:
        fit(settings, workdir, strategy, data, model, checkpoints, start)
    return report(settings, workdir, data, model, checkpoints, start, started, step)


def find_workdir(settings, strategy):
    """The run's directory; if it holds a run, that must have begun with the same settings.

    Of several workers each has its own: the first the directory itself, the others one in it.
    """
    worker, workers = distribution.worker_place(strategy)
    replicas = strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        raise ValueError(
            f"--batch-size: {settings.batch_size} pairs do not divide among {replicas} replicas"
        )
    share = settings.batch_size // replicas
    if settings.micro_batch_size and share % settings.micro_batch_size:
        raise ValueError(
            f"--micro-batch-size: {settings.micro_batch_size} does not divide the {share} pairs of "
            f"a replica; choose a divisor of {share}"
        )
    if workers > 1 and not settings.workdir:
        raise ValueError("--workdir: with several workers it must be given, the same to each")
    return open_workdir(settings, f"worker-{worker}" if worker else "")


def open_workdir(settings, part=""):
    """The run's directory, or a folder in it, once it is one that this run may use."""
    workdir = Path(settings.workdir or time.strftime("runs/%Y%m%d-%H%M%S")) / part
    for path in (workdir, *workdir.parents):
        if path.is_file():
            raise ValueError(f"--workdir: {path} is a file; give a directory")
    path = workdir / "settings.json"
    if path.exists():
        settings.check_resumable(checkpointing.read_json(path, dict), workdir)
    return workdir


def evaluate_start(settings, workdir, data, model, step):
    """Metrics of --model before its first step here, kept for when the run resumes.

    Empty without --model, and for a run that resumes with other held-out data.
    """
    if not settings.model:
        return {}
    path = workdir / "start.json"
    held_out = {name: getattr(settings, name) for name in ("eval_data", "zero_shot_data")}
    held_out["prompts"] = list(settings.prompts)
    if step == 0:
        metrics, _, _ = evaluate_held_out(settings, data, model)
        text = json.dumps({"held_out": held_out, "metrics": metrics}, indent=2)
        checkpointing.write_whole(path, text + "\n")
        return metrics
    before = checkpointing.read_json(path, dict) if path.exists() else {}
    if before.get("held_out") != held_out:
        print(f"no figures of --model on these held-out data in {path}", flush=True)
        return {}
    return before["metrics"]


def fit(settings, workdir, strategy, data, model, checkpoints, start):
    """Trains from the checkpoint's step to the last one."""
    first_step = checkpoints.step
    skipped = pipeline.SkippedPairs()

    def share_of(context):
        workers, replicas = context.num_input_pipelines, context.num_replicas_in_sync
        return pipeline.training_dataset(
            data.counts,
            data.preprocessor,
            context.get_per_replica_batch_size(settings.batch_size),
            seed=settings.seed,
            start_batch=first_step * replicas // workers,
            shuffle_buffer=settings.shuffle_buffer,
            worker=context.input_pipeline_id,
            num_workers=workers,
            skipped=skipped,
        )

    log = monitoring.TrainingLog(
        workdir, checkpoints, settings.steps, settings.batch_size, settings.log_every, skipped
    )

    if start and first_step == 0:
        log.write("eval", start)

    def evaluate():
        with optimizers.averaged_weights(model):
            metrics, _, _ = evaluate_held_out(settings, data, model)
        log.write("eval", metrics)
        recalls = [metrics[name] for name in reporting.RECALLS]
        if None not in recalls:
            checkpoints.save_if_best(float(np.mean(recalls)))

    def save():
        log.account()
        checkpoints.save()

    model.fit(
        strategy.distribute_datasets_from_function(share_of),
        steps_per_epoch=settings.steps - first_step,
        callbacks=[
            log,
            monitoring.EveryNSteps(settings.eval_every, first_step, settings.steps, evaluate),
            monitoring.EveryNSteps(settings.checkpoint_every, first_step, settings.steps, save),
        ],
        shuffle=False,
        verbose=0,
    )
    if skipped.count:
        print(f"skipped {skipped.count:,} corrupt or unreadable pairs", flush=True)


def evaluate_held_out(settings, data, model):
    """Metrics on the held-out data, their chance, and the embeddings of the held-out pairs.

    A metric that the data cannot tell is None.
    """
    metrics, chance = dict.fromkeys(reporting.RECALLS + reporting.ACCURACIES), {}
    held_out = None
    if data.evaluation:
        held_out = data.evaluation.embed(model)
        recalls, recall_chance = data.evaluation.retrieval(held_out)
        metrics, chance = metrics | recalls, chance | recall_chance
    if data.zero_shot:
        pictures = held_out if data.zero_shot is data.evaluation else data.zero_shot.embed(model)
        accuracy, accuracy_chance = data.zero_shot.zero_shot(model, pictures, settings.prompts)
        metrics, chance = metrics | accuracy, chance | accuracy_chance
    return metrics, chance, held_out


def report(settings, workdir, data, model, checkpoints, start, started, first_step):
    """Evaluates, draws the pictures, writes ``metrics.json`` and prints the closing table."""
    with optimizers.averaged_weights(model):
        metrics, chance, held_out = evaluate_held_out(settings, data, model)
        save_preset(model, workdir / "preset")
    seconds = float(checkpoints.seconds.numpy())
    metrics["num_pairs"] = len(held_out["rows"]) if held_out else 0
    metrics["num_classes"] = len(data.zero_shot.class_names) if data.zero_shot else 0
    metrics["train_pairs_per_second"] = (
        int(checkpoints.timed_pairs.numpy()) / seconds if seconds else None
    )
    # Of this process, which began at that step.
    metrics["resumed_at_step"] = first_step
    metrics["seconds"] = time.perf_counter() - started
    if start:
        metrics["start"] = start
    checkpointing.write_whole(workdir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    pictures = ["curves.png"]
    reporting.draw_curves(workdir / "curves.png", monitoring.read_log(workdir))
    if held_out:
        pictures.append("retrieval.png")
        reporting.draw_retrieval_sheet(workdir / "retrieval.png", data.evaluation, held_out)
    print(reporting.format_table(metrics, chance))
    files = ", ".join(["checkpoints/", "logs/", "preset/", "metrics.json", *pictures])
    print(f"run directory: {workdir} ({files})")
    return metrics


def save_preset(model, path):
    """Saves what ``AlignDualEncoder.from_preset`` loads, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_to_preset(partial)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def parse_settings(arguments, experiment="quickstart", description=__doc__):
    """Reads the flags: ``--experiment`` picks the defaults, the others override them."""
    name, others = pick_experiment(arguments, experiment, EXPERIMENTS)
    flags = {argument.partition("=")[0].replace("_", "-") for argument in others}
    default = EXPERIMENTS[name]
    if "--model" in flags:
        default = dataclasses.replace(default, **dict.fromkeys(PAPER_SIZES))
        for other in map(flag_of, BROUGHT_BY_MODEL):
            if other in flags:
                raise ValueError(f"{other}: --model brings its own; leave one of them out")
    settings = tyro.cli(
        PretrainSettings,
        default=default,
        args=others,
        description=f"{description}\n--experiment=NAME picks the defaults, here those of {name}; "
        f"there are {', '.join(EXPERIMENTS)}.",
    )
    if name != "quickstart" and not settings.train_data:
        raise ValueError(f"--experiment={name}: give --train-data; only quickstart renders scenes")
    return settings


def one_line(error):
    """What an error says, less the graph that TensorFlow puts around it."""
    if not isinstance(error, tf.errors.OpError):
        return str(error)
    if asserted := re.search(r"assertion failed: \[(.*?)[\s.]*\]", error.message):
        return asserted[1]
    noise = ("Graph execution error", "Detected at", "<stack traces", "\t")
    lines = (line for line in error.message.splitlines() if line and not line.startswith(noise))
    return next(lines, type(error).__name__)


def run_command(name, parse):
    """Runs a recipe with the settings that ``parse()`` reads; what fails is one line."""
    try:
        main(parse())
    except (ValueError, OSError, FloatingPointError, tf.errors.OpError) as error:
        sys.exit(f"{name}: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same --workdir resumes at the last checkpoint")


if __name__ == "__main__":
    run_command("pretrain.py", lambda: parse_settings(sys.argv[1:]))
