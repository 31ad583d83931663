"""Fine-tunes the image tower of a trained model as a classifier: first a head, then all weights."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from align_keras import distribution, keras_internals, progress
from align_keras.data import batches, labelled_images
from align_keras.errors import concerning
from align_keras.evaluation.tasks.classes import embed_labelled
from align_keras.evaluation.tasks.classification import classification_result
from align_keras.evaluation.tasks.result import report_result
from align_keras.files import write_whole
from align_keras.models import precision
from align_keras.models.image_classifier import AlignImageClassifier
from align_keras.optimizers import LayerwiseSGD, make_finetuning_schedule
from align_keras.paths import AnyPath
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.runs import cards, classification_data, trackers
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.classification_data import LabelledImages
from align_keras.runs.classification_settings import ClassificationSettings, Phase
from align_keras.runs.log import TrainingLog
from align_keras.runs.memory import keep_freed_memory
from align_keras.runs.presets import from_preset, load_model
from align_keras.runs.skipped import Items, SkippedInRun, check_finished, skipped_before
from align_keras.runs.training import train
from align_keras.runs.workdir import check_training_data, open_workdir
from align_keras.wording import counted

#: For each phase, the prefix of the JSON file and of the paper's figures.
PHASES = {"head": ("frozen", "linear_probe_"), "full": ("finetuned", "finetuned_")}

#: Files, other than results, that a run writes into its directory after ``settings.json``.
WRITTEN = (*PHASES, "classifier.keras")


@dataclasses.dataclass
class ClassificationRun:
    """An opened run."""

    settings: ClassificationSettings
    workdir: AnyPath
    strategy: tf.distribute.Strategy
    data: Any
    """The images to evaluate on."""
    train: LabelledImages
    classifier: AlignImageClassifier
    track: trackers.Track = trackers.nowhere

    def phase(self, name: str) -> Phase:
        """The settings of ``head`` or ``full``."""
        return {"head": self.settings.head, "full": self.settings.full}[name]

    def num_steps(self, name: str) -> int:
        """The steps of a phase."""
        return self.phase(name).num_steps(self.train.count, self.settings.training.batch_size)

    @property
    def items(self) -> Items:
        """The noun for the training data in messages."""
        return Items("images", self.settings.data.trained_on)


def finetune(
    settings: ClassificationSettings,
    command: str = "",
    ended: Callable[[AnyPath], Any] = lambda _: None,
) -> dict[str, dict[str, float]]:
    """Trains both phases, evaluates after each and saves.

    Args:
        settings: the run's settings; if its directory holds a run, that run continues.
        command: the user's command, for the classifier's card.
        ended: called at the end with the run's directory.

    Returns:
        The metrics of each phase.

    Raises:
        InputError: if a setting is wrong; the error names it.
        DivergedError: if the run diverged.
        Interrupted: after a signal, if the caller handles signals.
        LostDataError: if too many images were skipped, or one of the data files has changed.
    """
    keep_freed_memory()  # before TensorFlow starts its threads
    with contextlib.ExitStack() as held:
        run = open_run(settings, held)
        metrics = {}
        with trackers.tracking(settings.run.tracker, run.workdir, settings.flat()) as run.track:
            for name in PHASES:
                fit(run, name)
                metrics[name] = evaluate(run, name)
                run.track(run.num_steps(name), f"{name}/eval", metrics[name])
        with progress.working("saving the classifier"):
            cards.save_classifier(run, metrics, command)
    print(
        f"run directory: {run.workdir} (classifier.keras, README.md, *.json, *.png, head/, full/)"
    )
    ended(run.workdir)
    return metrics


def open_run(
    settings: ClassificationSettings, held: contextlib.ExitStack | None = None
) -> ClassificationRun:
    """Opens data and model; reports every fault in the settings, but not faults in images.

    Args:
        settings: the run's settings.
        held: as in ``open_workdir``.
    """
    settings.check()
    with concerning("strategy"):
        strategy = distribution.make_strategy(settings.run.strategy, settings.run.tpu)
    with concerning("batch_size"):
        distribution.share_of(strategy, settings.training.batch_size)
    workdir = open_workdir(
        settings, settings.run.workdir, written=WRITTEN, held=held, phases=list(PHASES)
    )
    data, train = classification_data.open_data(settings)
    print(
        f"{counted(train.count, 'training image')}, {counted(len(train.classes.names), 'class')}",
        flush=True,
    )
    keras.utils.set_random_seed(settings.run.seed)
    with strategy.scope(), precision.dtype_policy(settings.training.precision):
        classifier = make_classifier(settings, train.classes.names)
    workdir.mkdir(parents=True, exist_ok=True)
    check_training_data(
        workdir / "train_images.json",
        train.summary(),
        classification_data.difference,
        settings.data.trained_on,
    )
    write_whole(workdir / "settings.json", settings.as_json())
    return ClassificationRun(settings, workdir, strategy, data, train, classifier)


def make_classifier(
    settings: ClassificationSettings, class_names: list[str]
) -> AlignImageClassifier:
    """A classifier on the image tower of a trained model; call it in the strategy's scope."""
    with concerning("model"):
        model = load_model(settings.start.model, dtype=settings.training.precision)
    tower = model.backbone.image_encoder
    tower.rematerialize = settings.training.rematerialize
    # Otherwise each replica would keep the statistics of its own share of the batch, and the first
    # replica's statistics would be saved.
    tower.synchronized_batch_norm = True
    return AlignImageClassifier(tower, class_names, model.preprocessor)


def make_preprocessor(model: str, image_size: int | None, crop: float) -> AlignPreprocessor:
    """The preprocessor of a trained model, for another resolution.

    Args:
        model: a preset or the directory of a run.
        image_size: side of the crop in pixels; None for the model's own size.
        crop: fraction of each side that the centre crop covers.
    """
    load = AlignPreprocessor.from_preset
    with concerning("model"):
        size = image_size or from_preset(load, model).image_size
        return from_preset(load, model, image_size=size, resize_size=round(size / crop))


def compile_phase(run: ClassificationRun, name: str, steps: int) -> None:
    """Freezes the layers of the phase and compiles; call it in the strategy's scope."""
    phase, training = run.phase(name), run.settings.training
    run.classifier.image_encoder.trainable = name == "full"
    run.classifier.image_encoder.frozen_statistics = phase.frozen_statistics
    run.classifier.compile(
        LayerwiseSGD(
            make_finetuning_schedule(training.schedule, phase.learning_rate, steps),
            training.momentum,
            training.weight_decay,
            phase.backbone_factor,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    # Otherwise Keras would draw a batch and trace the model once more to build the losses.
    labels = keras.KerasTensor((None,), "int32")
    logits = keras.KerasTensor((None, len(run.classifier.class_names)), "float32")
    keras_internals.build_losses(run.classifier, labels, logits)


def fit(run: ClassificationRun, name: str) -> None:
    """Trains one phase from its newest intact checkpoint to its last step."""
    settings, workdir = run.settings, run.workdir / name
    batch_size = settings.training.batch_size
    steps = run.num_steps(name)
    workdir.mkdir(parents=True, exist_ok=True)
    with run.strategy.scope():
        compile_phase(run, name, steps)
        checkpoints = RunCheckpoints(workdir / "checkpoints", run.classifier)
    first_step = checkpoints.restore()
    if first_step:
        print(f"resuming {workdir} at step {first_step:,} of {steps:,}", flush=True)
    elif (workdir / "log.jsonl").exists():
        print(f"no checkpoint in {workdir}: the phase starts again at step 0", flush=True)
    if first_step == steps:
        check_finished(workdir, steps, settings.data.max_skipped_share, batch_size, run.items)
        return
    skipped = batches.SkippedRecords()
    dataset = training_data(run, run.phase(name).image_size, first_step, skipped)
    in_run = SkippedInRun(
        workdir,
        skipped.take,
        settings.data.max_skipped_share,
        run.train.count,
        batch_size,
        first_step,
        look=run.train.watched.look,
        items=run.items,
    )
    log = TrainingLog(
        workdir,
        checkpoints,
        steps,
        batch_size,
        settings.run.log_every,
        in_run,
        "images",
        track=lambda step, kind, metrics: run.track(step, f"{name}/{kind}", metrics),
    )
    try:
        train(
            run.classifier,
            run.strategy.experimental_distribute_dataset(dataset),
            log,
            [(settings.run.checkpoint_every, log.save)],
            f"lower <{name}.learning_rate> and give another <workdir>",
        )
    except tf.errors.OpError:
        # TensorFlow's error does not name the image.
        in_run.check_files(checkpoints.saved_step)
        with concerning(run.items.setting):
            run.train.check_readable()
        raise
    if in_run.count:
        print(f"skipped {counted(in_run.count, 'image')} that could not be decoded", flush=True)


def training_data(
    run: ClassificationRun,
    image_size: int | None,
    first_step: int,
    skipped: batches.SkippedRecords,
) -> Any:
    """Training batches of random crops, starting at a given step."""
    data = run.settings.data
    preprocessor = make_preprocessor(run.settings.start.model, image_size, data.eval_crop)

    def augment(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return preprocessor.decode_random_area(encoded, seed, data.min_crop_area)

    return labelled_images.training_dataset(
        run.train.read,
        run.train.count,
        augment,
        preprocessor.image_size,
        run.settings.training.batch_size,
        seed=run.settings.run.seed,
        start_batch=first_step,
        buffer=data.shuffle_buffer,
        skipped=skipped,
    )


def evaluate(run: ClassificationRun, name: str) -> dict[str, float]:
    """Evaluates after a phase: prints, writes JSON and pictures, and returns the metrics."""
    settings, classifier, classes = run.settings, run.classifier, run.train.classes
    phase, (kind, prefix) = run.phase(name), PHASES[name]
    classifier.preprocessor = make_preprocessor(
        settings.start.model, phase.eval_size or phase.image_size, settings.data.eval_crop
    )
    task = settings.start.task
    with concerning("data"):
        scored = embed_labelled(
            task,
            run.data,
            classifier.score,
            classifier.preprocessor,
            settings.run.eval_batch_size,
            classes.names,
        )
    trained = counted(run.train.count, "training image")
    title = f"{trained}, {counted(len(classes.names), 'class')}, {kind}"
    result = classification_result(
        kind, task, title, scored.features, scored, run.data, run.workdir
    )
    result.paper_prefix = prefix
    result.skipped_images = skipped_before(run.workdir / name, run.num_steps(name))
    report_result(result, task, settings.start.model, run.workdir / f"{kind}-{task}.json")
    return result.metrics
