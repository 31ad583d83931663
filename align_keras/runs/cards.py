"""The facts about a run for the card of its model: data, training and figures."""

import datetime
from collections.abc import Mapping
from typing import Any

from align_keras import checksums, paths
from align_keras.checksums import CARD, EARLIER_CARD
from align_keras.evaluation.metrics import ACCURACIES, RECALLS, title_of
from align_keras.files import whole_folder, write_whole
from align_keras.models import preset_card
from align_keras.models.preset_card import Figure, Origin
from align_keras.paths import AnyPath
from align_keras.runs import hardware
from align_keras.runs.classification_settings import ClassificationSettings, Phase
from align_keras.runs.model import thawed
from align_keras.runs.pretraining_data import RunData
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.wording import counted

# Maximum number of paths shown; the others are only counted.
_LISTED = 6


def of_pretraining(
    settings: PretrainSettings,
    data: RunData,
    found: Mapping[str, Any],
    chance: Mapping[str, float],
    hardware: str,
    command: str = "",
) -> Origin:
    """The facts about a pretrained model.

    Args:
        settings: settings of the run.
        data: data of the run.
        found: metrics of the run, as in ``metrics.json``, with ``training_seconds``.
        chance: chance levels of the metrics.
        hardware: description of the hardware.
        command: command that trained and evaluated the model.
    """
    model = settings.model
    origins = {
        "": model.model,
        "image tower ": model.image_encoder,
        "text tower ": model.text_encoder,
    }
    names = [name for name in RECALLS + ACCURACIES if found.get(name) is not None]
    return Origin(
        license=settings.run.license,
        base_models=_on_hugging_face(origins),
        data=[*_sources(settings, data), *_started_from(origins), *_vocabulary(settings, data)],
        training=_training(settings, data, found["training_seconds"], hardware),
        figures=[Figure(name, title_of(name), found[name], chance.get(name)) for name in names],
        held_out=_held_out(settings, found),
        command=command,
        date=_today(),
    )


def of_classification(
    settings: ClassificationSettings,
    images: int,
    classes: int,
    metrics: Mapping[str, Mapping[str, float]],
    hardware: str,
    command: str = "",
) -> Origin:
    """The facts about a fine-tuned classifier.

    Args:
        settings: settings of the run.
        images: number of training images.
        classes: number of classes.
        metrics: metrics of each phase, by the phase's name.
        hardware: description of the hardware.
        command: command that trained and evaluated the classifier.
    """
    data, training = settings.data, settings.training
    train = data.train_data or data.data or settings.start.task
    origins = {"": settings.start.model}
    return Origin(
        license=settings.run.license,
        base_models=_on_hugging_face(origins),
        data=[
            f"{public(train)}: {counted(images, 'training image')}, {counted(classes, 'class')}",
            *_started_from(origins),
        ],
        training=[
            _phase("the head on the frozen tower", settings.head),
            _phase("all weights", settings.full),
            f"batches of {training.batch_size:,}, SGD with momentum {training.momentum:g}, "
            f"schedule {training.schedule}, weight decay {training.weight_decay:g}, "
            f"{training.precision}",
            hardware,
        ],
        figures=[
            Figure(name, title_of(name), value, {"top_1": 1 / classes}.get(name))
            for name, value in metrics["full"].items()
        ],
        held_out=f"the test images of {settings.start.task}",
        command=command,
        date=_today(),
    )


def save_preset(
    run: Any, found: Mapping[str, Any], chance: Mapping[str, float], command: str
) -> None:
    """Writes ``preset/`` of a ``PretrainingRun`` with a card; an edited card is kept.

    Args:
        run: the run; its model has the weights to save.
        found: metrics of the run, as in ``metrics.json``.
        chance: chance levels of the metrics.
        command: command that trained and evaluated the model.
    """
    found = {**found, "training_seconds": float(run.checkpoints.seconds.numpy())}
    machine = hardware.describe(run.strategy)
    origin = of_pretraining(run.settings, run.data, found, chance, machine, command)
    preset = run.workdir / "preset"
    with whole_folder(preset, replace=True) as folder, thawed(run.model):
        _keep_edited(preset, folder)
        run.model.save_to_preset(folder, card=preset_card.of_dual_encoder(run.model, origin))


def save_classifier(run: Any, metrics: Mapping[str, Mapping[str, float]], command: str) -> None:
    """Writes ``classifier.keras`` of a ``ClassificationRun`` and a card; an edited card is kept.

    Args:
        run: the run; its classifier has the weights to save.
        metrics: metrics of each phase, by the phase's name.
        command: command that trained and evaluated the classifier.
    """
    workdir, settings, train = run.workdir, run.settings, run.train
    machine = hardware.describe(run.strategy)
    origin = of_classification(
        settings, train.count, len(train.classes.names), metrics, machine, command
    )
    text = preset_card.of_classifier(run.classifier, settings.start.task, origin)
    write_whole(workdir / "classifier.keras", run.classifier.save)
    _keep_edited(workdir, workdir)
    write_whole(workdir / CARD, preset_card.sealed(text))
    checksums.write_folder(workdir, ["classifier.keras", CARD])


def _keep_edited(before: AnyPath, new: AnyPath) -> None:
    if preset_card.keep_edited(before, new):
        print(f"{before / CARD} was edited; it is kept there as {EARLIER_CARD}", flush=True)


def public(text: str) -> str:
    """Shortens paths for a card to their last two names, without the folders of this machine.

    Names of hubs and TFDS are not shortened. Of many paths joined by commas, only the first ones
    are shown.
    """
    parts = text.split(",")
    shown = [f"`{_end_of(part)}`" for part in parts[:_LISTED]]
    more = [f"and {len(parts) - _LISTED:,} more"] if len(parts) > _LISTED else []
    return ", ".join(shown + more)


def _end_of(path: str) -> str:
    if paths.scheme(path) in paths.HUB_SCHEMES or path.startswith("tfds:"):
        return path
    return "/".join(path.rstrip("/").split("/")[-2:])


def _sources(settings: PretrainSettings, data: RunData) -> list[str]:
    sources = data.sources
    pairs = [counted(number, "pair") for number in sources.pairs]
    if sources.groups:
        pairs = [
            f"{counted(own.images, 'image')} with {counted(len(own.records), 'caption')}"
            for own in sources.groups
        ]
    if not settings.data.train_data:
        return [f"{pairs[0]} of rendered scenes of coloured shapes and their captions"]
    if not sources.mixed:
        shards = counted(len(data.counts), "shard")
        return [f"{public(settings.data.train_data)}: {pairs[0]} in {shards}"]
    weights = sum(source.weight for source in sources.mixed)
    run = settings.run
    used = sources.used(run.steps, run.batch_size)
    return [
        f"{public(own.name)}: {number}, {source.weight / weights:.1%} of each batch, "
        f"{own.epochs:,.3g} epochs"
        for own, number, source in zip(used, pairs, sources.mixed, strict=True)
    ]


def _started_from(origins: Mapping[str, str]) -> list[str]:
    started = [
        f"{part}started from {public(origin)}, whose licence terms apply as well"
        for part, origin in origins.items()
        if origin
    ]
    return started or ["started from random weights"]


def _on_hugging_face(origins: Mapping[str, str]) -> list[str]:
    return [own.removeprefix("hf://") for own in origins.values() if own.startswith("hf://")]


def _vocabulary(settings: PretrainSettings, data: RunData) -> list[str]:
    if settings.model.model or settings.model.text_encoder:
        return []
    given = settings.data.vocabulary
    what = f"from {public(given)}" if given else "trained on the captions"
    return [f"{counted(len(data.preprocessor.vocabulary), 'word piece')}, {what}"]


def _training(
    settings: PretrainSettings, data: RunData, seconds: float, hardware: str
) -> list[str]:
    run, model, optimizer = settings.run, settings.model, settings.optimizer
    epochs = run.steps * run.batch_size / data.sources.total
    lines = [f"experiment `{run.experiment}`"] if run.experiment else []
    if settings.data.captions == "sample":
        lines.append("an epoch has one caption of each image")
    lines += [
        f"{counted(run.steps, 'step')} of {run.batch_size:,} pairs, {epochs:,.3g} epochs; "
        f"seed {run.seed}",
        f"{optimizer.optimizer}, learning rate {optimizer.learning_rate:g} after "
        f"{counted(optimizer.warmup_steps, 'step')} of warm-up, schedule {optimizer.schedule}, "
        f"weight decay {optimizer.weight_decay:g}, label smoothing {optimizer.label_smoothing:g}",
        f"towers in {model.precision}; initial temperature {model.initial_temperature:g}"
        if not model.model
        else f"towers in {model.precision}",
        f"{hardware}; {seconds:,.0f} s of training, without evaluations",
    ]
    if model.freeze:
        lines.append(f"frozen: {model.freeze}")
    if optimizer.ema_momentum:
        lines.append(f"the weights are a moving average, decay {optimizer.ema_momentum:g}")
    if not optimizer.mask_false_negatives:
        lines.append("equal captions were each other's negatives")
    return lines


def _held_out(settings: PretrainSettings, found: Mapping[str, Any]) -> str:
    data = settings.data
    pairs, classes = found["num_pairs"], found["num_classes"]
    parts = []
    if pairs:
        of = f" of {public(data.eval_data)}" if data.eval_data else ""
        parts.append(f"{counted(pairs, 'held-out pair')}{of}")
    if classes:
        of = f" of {public(data.zero_shot_data)}" if data.zero_shot_data else ""
        parts.append(f"{counted(classes, 'class')}{of}")
    return ", ".join(parts)


def _phase(what: str, phase: Phase) -> str:
    length = counted(phase.steps, "step") if phase.steps else counted(phase.epochs, "epoch")
    return f"{what}: {length}, learning rate {phase.learning_rate:g}"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
