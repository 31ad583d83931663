r"""Pretrains ALIGN end to end: shards of image-text pairs in, an evaluated model out.

    python recipes/pretrain.py
    python recipes/pretrain.py --train-data='DIR/train-*.tfrecord' \
        --eval-data='DIR/val-*.tfrecord' --workdir=DIR
    python recipes/pretrain.py --experiment=cc3m_b3_mini --strategy=tpu ...

Without --train-data it renders its own scenes.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

# Before TensorFlow loads: its warnings, one a corrupt image, would tear the progress bar.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tyro
from experiments import EXPERIMENTS, PretrainSettings

from align_keras import (
    AlignDualEncoder,
    AlignPreprocessor,
    Lamb,
    WarmupLinearDecay,
    build_backbone,
    distribution,
    monitoring,
    presets,
)
from align_keras.checkpointing import RunCheckpoints
from align_keras.data import pipeline, records, scenes, vocabulary
from align_keras.evaluation import zero_shot
from align_keras.evaluation.held_out import HeldOutPairs
from align_keras.preprocessor import read_vocabulary

# Settings that a resumed run may change.
_FREE_ON_RESUME = {
    "workdir",
    "strategy",
    "tpu",
    "eval_every",
    "checkpoint_every",
    "log_every",
    "eval_data",
    "prompts",
    "zero_shot_data",
}


def main(settings):
    """Trains, evaluates and reports; returns what ``metrics.json`` holds."""
    started = time.perf_counter()
    check_settings(settings)
    strategy = distribution.make_strategy(settings.strategy, settings.tpu)
    workdir = find_workdir(settings, strategy)
    shards = find_shards(settings)
    keras.utils.set_random_seed(settings.seed)
    # All that can be wrong with the input is known by now; from here on files are written.
    write_settings(settings, workdir)
    data = open_data(settings, workdir, shards)
    with strategy.scope():
        model = make_model(settings, data["preprocessor"])
        checkpoints = RunCheckpoints(workdir / "checkpoints", model)
    step = checkpoints.restore()
    if step:
        print(f"resuming {workdir} at step {step:,} of {settings.steps:,}", flush=True)
    if step < settings.steps:
        fit(settings, workdir, strategy, data, model, checkpoints)
    return report(settings, workdir, data, model, checkpoints, started)


def check_settings(settings):
    """Raises on numbers that cannot be, before anything is made."""
    for name in ("steps", "eval_every", "checkpoint_every", "log_every", "shuffle_buffer"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{flag_of(name)}: must be at least 1, not {getattr(settings, name)}")
    if settings.batch_size < 2:
        raise ValueError(f"--batch-size: must be at least 2, not {settings.batch_size}")
    if not 0 <= settings.warmup_steps < settings.steps:
        raise ValueError(
            f"--warmup-steps: {settings.warmup_steps:,} must be below --steps ({settings.steps:,})"
        )
    if settings.resize_size < settings.image_size:
        raise ValueError(
            f"--resize-size: {settings.resize_size} must be at least --image-size "
            f"({settings.image_size})"
        )
    if settings.preset not in presets.PRESETS:
        raise ValueError(
            f"--preset: no {settings.preset!r}; choose one of {', '.join(sorted(presets.PRESETS))}"
        )
    zero_shot.fill_prompts([], settings.prompts)
    if settings.vocabulary:
        read_vocabulary(settings.vocabulary)
    if settings.eval_data and not settings.train_data:
        raise ValueError("--eval-data without --train-data: give both")


def flag_of(name):
    """The flag of a setting: ``batch_size`` -> ``--batch-size``."""
    return "--" + name.replace("_", "-")


def find_workdir(settings, strategy):
    """The run's directory; if it holds a run, that must have begun with the same settings.

    Of several workers each has its own: the first the directory itself, the others one in it.
    """
    workdir = Path(settings.workdir or time.strftime("runs/%Y%m%d-%H%M%S"))
    worker, _ = distribution.worker_place(strategy)
    if worker:
        workdir /= f"worker-{worker}"
    path = workdir / "settings.json"
    if path.exists():
        before, now = json.loads(path.read_text()), plain(settings)
        for name in sorted(now.keys() - _FREE_ON_RESUME):
            if before.get(name) != now[name]:
                raise ValueError(
                    f"{flag_of(name)}: the run in {workdir} began with {before.get(name)!r}, not "
                    f"{now[name]!r}; resume with that, or give another --workdir"
                )
    return workdir


def plain(settings):
    """The settings as JSON gives them back."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def write_settings(settings, workdir):
    """Makes the run's directory and notes the settings in it."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "settings.json").write_text(json.dumps(plain(settings), indent=2) + "\n")


def find_shards(settings):
    """Finds and checks the shards of each of the three data flags; paths by flag."""
    shards = {}
    for flag in ("--train-data", "--eval-data", "--zero-shot-data"):
        pattern = getattr(settings, flag[2:].replace("-", "_"))
        shards[flag] = records.find_shards(pattern, flag) if pattern else []
        if shards[flag]:
            records.check_shards(shards[flag])
    total = sum(pipeline.shard_counts(shards["--train-data"]).values())
    if 0 < total < settings.batch_size:
        raise ValueError(
            f"--batch-size: {settings.batch_size:,} is more than the {total:,} pairs of "
            f"--train-data; lower it to {total:,} or less, or give more data"
        )
    return shards


def open_data(settings, workdir, shards):
    """Reads or trains the vocabulary and opens the data; renders it where none is given."""
    train_shards, eval_shards, zero_shot_shards = shards.values()
    if not train_shards:
        train_shards, eval_shards = quickstart_data(workdir / "data", settings.seed)
    vocabulary_path = str(workdir / "vocab.txt")
    if settings.vocabulary:
        pieces = read_vocabulary(settings.vocabulary)
        vocabulary.write_vocabulary(pieces, vocabulary_path)
    elif Path(vocabulary_path).exists():
        pieces = read_vocabulary(vocabulary_path)
    else:
        captions = records.read_captions(train_shards, settings.vocabulary_captions)
        pieces = vocabulary.train_vocabulary(captions, settings.vocabulary_size)
        vocabulary.write_vocabulary(pieces, vocabulary_path)
    preprocessor = AlignPreprocessor(
        pieces, settings.image_size, settings.resize_size, settings.sequence_length
    )
    counts = pipeline.shard_counts(train_shards)
    print(
        f"{sum(counts.values()):,} training pairs in {len(counts)} shards, "
        f"{len(pieces):,} word pieces",
        flush=True,
    )
    batch_size = min(settings.batch_size, 256)
    evaluation = zero_shot_pairs = None
    if eval_shards:
        evaluation = HeldOutPairs(eval_shards, preprocessor, batch_size)
        zero_shot_pairs = evaluation
    if zero_shot_shards:
        zero_shot_pairs = HeldOutPairs(zero_shot_shards, preprocessor, batch_size)
    return {
        "counts": counts,
        "preprocessor": preprocessor,
        "evaluation": evaluation,
        "zero_shot": zero_shot_pairs,
    }


def quickstart_data(directory, seed):
    """Renders the quickstart's scenes unless they are there."""
    finished = directory / "finished"
    if not finished.exists():
        print(f"no --train-data: rendering scenes into {directory}", flush=True)
        scenes.write_scenes(directory, num_train=20_000, num_eval=500, seed=seed)
        finished.touch()  # an interrupted rendering is done again
    return [records.find_shards(f"{directory}/{part}-*.tfrecord") for part in ("train", "eval")]


def make_model(settings, preprocessor):
    """Builds and compiles the dual encoder; to be called in the strategy's scope."""
    backbone = build_backbone(
        settings.preset,
        vocabulary_size=len(preprocessor.vocabulary),
        sequence_length=settings.sequence_length,
        synchronized_batch_norm=settings.synchronized_batch_norm,
    )
    model = AlignDualEncoder(backbone, settings.initial_temperature, settings.min_temperature)
    learning_rate = WarmupLinearDecay(settings.learning_rate, settings.warmup_steps, settings.steps)
    if settings.optimizer == "lamb":
        optimizer = Lamb(learning_rate, weight_decay=settings.weight_decay)
    else:
        optimizer = keras.optimizers.AdamW(
            learning_rate, weight_decay=settings.weight_decay, epsilon=1e-6
        )
        optimizer.exclude_from_weight_decay(
            [variable for variable in model.trainable_variables if len(variable.shape) < 2]
        )
    model.compile(
        optimizer,
        label_smoothing=settings.label_smoothing,
        mask_false_negatives=settings.mask_false_negatives,
        global_clipnorm=settings.global_clipnorm or None,
    )
    return model


def fit(settings, workdir, strategy, data, model, checkpoints):
    """Trains from the checkpoint's step to the last one."""
    first_step = checkpoints.step
    skipped = pipeline.SkippedPairs()

    def share_of(context):
        return pipeline.training_dataset(
            data["counts"],
            data["preprocessor"],
            context.get_per_replica_batch_size(settings.batch_size),
            seed=settings.seed,
            start_batch=first_step * context.num_replicas_in_sync // context.num_input_pipelines,
            shuffle_buffer=settings.shuffle_buffer,
            worker=context.input_pipeline_id,
            num_workers=context.num_input_pipelines,
            skipped=skipped,
        )

    log = monitoring.TrainingLog(
        workdir, checkpoints, settings.steps, settings.batch_size, settings.log_every
    )

    def evaluate():
        metrics, _ = evaluate_held_out(settings, data, model)
        log.write("eval", metrics)
        recalls = [value for name, value in metrics.items() if "recall" in name]
        if recalls:
            checkpoints.save_if_best(float(np.mean(recalls)))

    def save():
        log.account()
        checkpoints.save()

    model.fit(
        strategy.distribute_datasets_from_function(share_of),
        steps_per_epoch=settings.steps - first_step,
        callbacks=[
            log,
            monitoring.EveryNSteps(settings.eval_every, first_step, evaluate),
            monitoring.EveryNSteps(settings.checkpoint_every, first_step, save),
        ],
        shuffle=False,
        verbose=0,
    )
    save()
    if skipped.count:
        print(f"skipped {skipped.count:,} corrupt or unreadable pairs", flush=True)


def evaluate_held_out(settings, data, model):
    """Retrieval and zero-shot metrics on the held-out data, with their chance."""
    metrics, chance = {}, {}
    embeddings = None
    if data["evaluation"]:
        embeddings = data["evaluation"].embed(model)
        metrics, chance = data["evaluation"].retrieval(embeddings)
    if data["zero_shot"]:
        if data["zero_shot"] is not data["evaluation"]:
            embeddings = data["zero_shot"].embed(model)
        accuracy = data["zero_shot"].zero_shot(model, embeddings, settings.prompts)
        metrics, chance = metrics | accuracy[0], chance | accuracy[1]
    return metrics, chance


def report(settings, workdir, data, model, checkpoints, started):
    """Evaluates, draws the pictures, writes ``metrics.json`` and prints the closing table."""
    metrics, chance = evaluate_held_out(settings, data, model)
    seconds = float(checkpoints.seconds.numpy())
    metrics["num_pairs"] = len(data["evaluation"].captions) if data["evaluation"] else 0
    metrics["num_classes"] = len(data["zero_shot"].class_names) if data["zero_shot"] else 0
    metrics["train_pairs_per_second"] = (
        int(checkpoints.timed_pairs.numpy()) / seconds if seconds else None
    )
    metrics["seconds"] = time.perf_counter() - started
    (workdir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    monitoring.draw_curves(workdir)
    if data["evaluation"]:
        draw_retrieval_sheet(workdir / "retrieval.png", data["evaluation"], model)
    print_table(metrics, chance)
    print(
        f"run directory: {workdir} (checkpoints/, logs/, metrics.json, curves.png, retrieval.png)"
    )
    return metrics


def draw_retrieval_sheet(path, evaluation, model, rows=8, columns=6):
    """Draws what evenly spread held-out captions retrieve."""
    embeddings = evaluation.embed(model)
    groups = embeddings["groups"]
    _, images = np.unique(groups, return_index=True)
    asked = np.unique(np.linspace(0, len(groups) - 1, rows).astype(int))
    columns = min(columns, len(images))
    scores = embeddings["text_embeddings"][asked] @ embeddings["image_embeddings"][images].T
    best = np.argsort(-scores, axis=1)[:, :columns]
    pictures = evaluation.images(embeddings["rows"][images[best]].ravel())
    monitoring.draw_retrievals(
        path,
        [evaluation.captions[row] for row in embeddings["rows"][asked]],
        pictures.reshape(*best.shape, *pictures.shape[1:]),
        groups[images[best]] == groups[asked][:, None],
        np.take_along_axis(scores, best, axis=1),
    )


_TABLE_ROWS = (
    ("image to text", [f"i2t_recall_at_{k}" for k in (1, 5, 10)]),
    ("text to image", [f"t2i_recall_at_{k}" for k in (1, 5, 10)]),
)


def print_table(metrics, chance):
    """Prints every metric beside its chance."""

    def percent(value):
        return "-" if value is None else f"{100 * value:.1f} %"

    lines = []
    for title, names in _TABLE_ROWS:
        for name in names:
            if name in metrics:
                lines.append((f"{title} R@{name.rsplit('_', 1)[1]}", name))
    for title, name in (
        ("zero-shot top-1", "zero_shot_top_1"),
        ("zero-shot top-1, unseen classes", "zero_shot_unseen_top_1"),
    ):
        if metrics.get(name) is not None:
            lines.append((title, name))
    print(f"\n{metrics['num_pairs']:,} held-out pairs, {metrics['num_classes']:,} classes")
    print(f"{'':<34}{'model':>10}{'chance':>10}")
    for title, name in lines:
        print(f"{title:<34}{percent(metrics[name]):>10}{percent(chance[name]):>10}")
    speed = metrics["train_pairs_per_second"]
    print(
        f"\n{metrics['seconds']:,.0f} s in all; training "
        + (f"{speed:,.0f} pairs/s" if speed else "not timed")
    )


def parse_settings(arguments):
    """Reads the flags: ``--experiment`` picks the defaults, the others override them."""
    name = "quickstart"
    others = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--experiment":
            name = next(remaining, "")
        elif argument.startswith("--experiment="):
            name = argument.partition("=")[2]
        else:
            others.append(argument)
    if name not in EXPERIMENTS:
        raise ValueError(f"--experiment: no {name!r}; choose one of {', '.join(EXPERIMENTS)}")
    return tyro.cli(
        PretrainSettings,
        default=EXPERIMENTS[name],
        args=others,
        description=f"{__doc__}\n--experiment=NAME picks the defaults, here those of {name}; "
        f"there are {', '.join(EXPERIMENTS)}.",
    )


if __name__ == "__main__":
    try:
        main(parse_settings(sys.argv[1:]))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"pretrain.py: {error}")
    except KeyboardInterrupt:
        sys.exit("pretrain.py: interrupted; the same --workdir resumes at the last checkpoint")
