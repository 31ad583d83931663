r"""Fine-tunes the image tower of a trained model to classify, by the paper's recipes.

    python recipes/finetune_classification.py --model=hf://kakaobrain/align-base --task=imagenet
    python recipes/finetune_classification.py --experiment=fine_grained --model=RUN --task=pets
    python recipes/finetune_classification.py --experiment=small_set --model=RUN --task=photos \
        --data=PHOTOS/labels.csv

First a linear head on the frozen tower, then everything. After either it prints a table with chance
and, where the paper has one, its figure, and writes JSON and pictures as evaluate.py does; at the
end, classifier.keras.
"""

import dataclasses
import sys

from quiet_tensorflow import load_quietly

load_quietly()

import classification_tasks
import keras
import tensorflow as tf
import tyro
from classification_data import LabelledImages, check_classes, check_same_images
from classification_experiments import EXPERIMENTS, ClassificationSettings
from experiments import pick_experiment
from pretrain import one_line, open_workdir
from run_presets import from_preset, load_model

from align_keras import AlignImageClassifier, AlignPreprocessor, distribution
from align_keras.data import labelled_images, pipeline
from align_keras.evaluation import data_sets, report
from align_keras.models import precision
from align_keras.optimizers import layerwise_sgd
from align_keras.runs import checkpointing, monitoring

#: What JSON and the paper's figures are called after each phase.
PHASES = {"head": ("frozen", "linear_probe_"), "full": ("finetuned", "finetuned_")}


def main(settings):
    """Trains both phases, evaluates after each and saves; returns the metrics of each."""
    settings.check()
    strategy = distribution.make_strategy(settings.strategy, settings.tpu)
    workdir = find_workdir(settings, strategy)
    data, train_data = classification_tasks.open_probe(settings, settings.task)
    train = LabelledImages(settings, train_data)
    print(f"{train.count:,} training images, {len(train.classes.names):,} classes", flush=True)
    check_classes(train.classes, data)
    keras.utils.set_random_seed(settings.seed)
    with strategy.scope(), precision.dtype_policy(settings.precision):
        classifier = make_classifier(settings, train.classes.names)
    workdir.mkdir(parents=True, exist_ok=True)
    check_same_images(workdir / "train_images.json", train)
    checkpointing.write_whole(workdir / "settings.json", settings.as_json())
    metrics = {}
    for name in PHASES:
        fit(settings, name, workdir, strategy, train, classifier)
        metrics[name] = evaluate(settings, name, workdir, data, train, classifier)
    save(classifier, workdir / "classifier.keras")
    print(f"run directory: {workdir} (classifier.keras, *.json, *.png, head/, full/)")
    return metrics


def find_workdir(settings, strategy):
    """The run's directory; if it holds a run, that must have begun with the same settings."""
    replicas = strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        raise ValueError(
            f"--batch-size: {settings.batch_size} images do not divide among {replicas} replicas"
        )
    return open_workdir(settings)


def make_classifier(settings, class_names):
    """A classifier on the image tower of --model; to be called in the strategy's scope."""
    model = load_model(settings.model, dtype=settings.precision)
    tower = model.backbone.image_encoder
    tower.rematerialize = settings.rematerialize
    # Else each replica would keep, and the first one save, the statistics of its own share.
    tower.synchronized_batch_norm = True
    return AlignImageClassifier(tower, class_names, model.preprocessor)


def make_preprocessor(settings, phase, part):
    """That of --model at the phase's resolution, with the centre crop of evaluation."""
    own = from_preset(AlignPreprocessor.from_preset, settings.model)
    size = phase.image_size or own.image_size
    if part == "evaluation":
        size = phase.eval_size or size
    return from_preset(
        AlignPreprocessor.from_preset,
        settings.model,
        image_size=size,
        resize_size=round(size / settings.eval_crop),
    )


def make_schedule(settings, phase, steps):
    """The learning rate over a phase's steps."""
    if settings.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(phase.learning_rate, steps)
    # A boundary is the last step before a drop.
    boundaries = [round(share * steps) - 1 for share in (0.3, 0.6, 0.9)]
    values = [phase.learning_rate * 0.2**drops for drops in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


def compile_phase(settings, name, classifier, steps):
    """Freezes what a phase freezes, and compiles; to be called in the strategy's scope."""
    phase = getattr(settings, name)
    classifier.image_encoder.trainable = name == "full"
    classifier.image_encoder.frozen_statistics = phase.frozen_statistics
    classifier.compile(
        layerwise_sgd.LayerwiseSGD(
            make_schedule(settings, phase, steps),
            settings.momentum,
            settings.weight_decay,
            phase.backbone_factor,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


def fit(settings, name, workdir, strategy, train, classifier):
    """Trains one phase from its newest checkpoint to its last step."""
    phase = getattr(settings, name)
    steps = phase.num_steps(train.count, settings.batch_size)
    (workdir / name).mkdir(exist_ok=True)
    with strategy.scope():
        compile_phase(settings, name, classifier, steps)
        checkpoints = checkpointing.RunCheckpoints(
            workdir / name / "checkpoints", classifier, max_to_keep=1
        )
    first_step = checkpoints.restore()
    if first_step:
        print(f"resuming {workdir / name} at step {first_step:,} of {steps:,}", flush=True)
    if first_step == steps:
        return
    preprocessor = make_preprocessor(settings, phase, "training")

    def augment(encoded, seed):
        return preprocessor.decode_random_area(encoded, seed, settings.min_crop_area)

    dataset = labelled_images.training_dataset(
        train.read,
        train.count,
        augment,
        preprocessor.image_size,
        settings.batch_size,
        seed=settings.seed,
        start_batch=first_step,
        buffer=settings.shuffle_buffer,
    )
    log = monitoring.TrainingLog(
        workdir / name,
        checkpoints,
        steps,
        settings.batch_size,
        settings.log_every,
        pipeline.SkippedPairs(),
    )
    save_step = monitoring.EveryNSteps(
        settings.checkpoint_every, first_step, steps, checkpoints.save
    )
    try:
        classifier.fit(
            strategy.experimental_distribute_dataset(dataset),
            steps_per_epoch=steps - first_step,
            callbacks=[log, save_step],
            shuffle=False,
            verbose=0,
        )
    except FloatingPointError as error:
        what = str(error).partition(";")[0]
        raise FloatingPointError(
            f"{what}; lower --{name}.learning-rate and give another --workdir"
        ) from None
    except tf.errors.InvalidArgumentError:
        # TensorFlow does not say which image it was.
        train.check_readable()
        raise


def evaluate(settings, name, workdir, data, train, classifier):
    """Scores the evaluation images, prints, writes JSON and pictures; returns the metrics."""
    kind, prefix = PHASES[name]
    classifier.preprocessor = make_preprocessor(settings, getattr(settings, name), "evaluation")
    embedding_settings = dataclasses.replace(settings, batch_size=settings.eval_batch_size)
    scored = classification_tasks.embed_labelled(
        embedding_settings, settings.task, data, classifier.score, train.classes.names
    )
    title = f"{train.count:,} training images, {len(train.classes.names):,} classes, {kind}"
    result = classification_tasks.classification_result(
        kind, settings.task, title, scored.features, scored, data, classifier, workdir
    )
    result.paper_prefix = prefix
    paper = data_sets.DATA_SETS.get(settings.task, data_sets.DataSet()).paper
    print(report.format_table(result.title, result.metrics, result.chance, result.paper(paper)))
    report.write_json(
        workdir / f"{kind}-{settings.task}.json",
        settings.task,
        settings.model,
        kind,
        result.metrics,
        chance=result.chance,
    )
    return result.metrics


def save(classifier, path):
    """Saves the classifier, whole or not at all."""
    partial = path.with_name("partial.keras")
    classifier.save(partial)
    partial.replace(path)


def parse_settings(arguments):
    """Reads the flags: ``--experiment`` picks the defaults, the others override them."""
    name, others = pick_experiment(arguments, "imagenet", EXPERIMENTS)
    settings = tyro.cli(
        ClassificationSettings,
        default=EXPERIMENTS[name],
        args=others,
        description=f"{__doc__}\n--experiment=NAME picks the defaults, here those of {name}; "
        f"there are {', '.join(EXPERIMENTS)}.",
    )
    for flag in ("model", "task"):
        if not getattr(settings, flag):
            raise ValueError(f"--{flag}: give one; --help says which there are")
    return settings


if __name__ == "__main__":
    try:
        main(parse_settings(sys.argv[1:]))
    except (ValueError, OSError, FloatingPointError, tf.errors.OpError) as error:
        sys.exit(f"finetune_classification.py: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(
            "finetune_classification.py: interrupted; the same --workdir resumes at the last "
            "checkpoint"
        )
