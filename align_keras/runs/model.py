"""The model of a pretraining run: built from its settings or loaded, and compiled."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from align_keras.errors import InputError, concerning
from align_keras.models import pretrained
from align_keras.models.backbone import AlignBackbone
from align_keras.models.dual_encoder import AlignDualEncoder
from align_keras.models.image_encoder import build_image_encoder
from align_keras.models.presets import PRESETS
from align_keras.models.rates import factors_by_path
from align_keras.models.text_encoder import TextEncoder, build_text_encoder
from align_keras.optimizers import make_optimizer, make_schedule
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.runs.frozen_towers import TOWERS, frozen_towers
from align_keras.runs.presets import load_model
from align_keras.runs.pretraining_parts import ModelSettings, OptimizerSettings


def with_gelu(settings: ModelSettings) -> ModelSettings:
    """The settings with the GELU of the text tower filled in, unless a trained model determines it.

    Raises:
        InputError: if the pretrained text tower is not a usable BERT.
    """
    if settings.model or settings.text_gelu:
        return settings
    approximate = True
    if settings.text_encoder:
        with concerning("text_encoder"):
            approximate = pretrained.has_approximate_gelu(settings.text_encoder)
    return dataclasses.replace(settings, text_gelu="tanh" if approximate else "exact")


def make_model(
    settings: ModelSettings,
    optimizer: OptimizerSettings,
    preprocessor: AlignPreprocessor,
    steps: int,
) -> AlignDualEncoder:
    """Builds or loads the dual encoder and compiles it; call it in the strategy's scope.

    Args:
        settings: model settings.
        optimizer: settings of loss and optimizer.
        preprocessor: the run's preprocessor.
        steps: total steps of the run, over which the learning rate falls.

    Raises:
        InputError: if the model or data of a setting do not load or do not match.
    """
    if settings.model:
        model = load_start(settings, preprocessor)
    else:
        model = AlignDualEncoder(
            make_backbone(settings, preprocessor),
            preprocessor,
            initial_temperature=settings.initial_temperature,
            min_temperature=settings.min_temperature,
        )
    freeze(model, settings)
    # The optimizer also gets the weights of towers that are trained only in a later phase; `freeze`
    # is called at the start of each phase.
    compile_model(model, optimizer, steps, frozen_towers(settings.freeze))
    return model


def freeze(model: AlignDualEncoder, settings: ModelSettings, step: int | None = None) -> None:
    """Freezes the towers named in the settings; unfreezes others, which a preset may have frozen.

    Args:
        model: the run's model.
        settings: model settings.
        step: number of steps done; None to freeze only towers that are never trained.
    """
    frozen = frozen_towers(settings.freeze)
    for name in TOWERS:
        tower, last = getattr(model.backbone, name), frozen.get(name, 0)
        trainable = last is not None and (step is None or step >= last)
        if tower.trainable != trainable:
            tower.trainable = trainable
    model.backbone.image_encoder.frozen_statistics = settings.frozen_statistics


@contextlib.contextmanager
def thawed(model: AlignDualEncoder) -> Iterator[None]:
    """Unfreezes the towers inside the block, so that a saved preset has no frozen towers."""
    towers = [getattr(model.backbone, name) for name in TOWERS]
    frozen = [tower for tower in towers if not tower.trainable]
    for tower in frozen:
        tower.trainable = True
    try:
        yield
    finally:
        for tower in frozen:
            tower.trainable = False


def make_backbone(settings: ModelSettings, preprocessor: AlignPreprocessor) -> AlignBackbone:
    """Builds both towers, or loads pretrained ones."""
    size: dict[str, Any] = PRESETS[settings.preset]
    options = {
        "synchronized_batch_norm": settings.synchronized_batch_norm,
        "top_convolution": settings.top_convolution,
    }
    if settings.image_encoder:
        with concerning("image_encoder"):
            image_encoder = pretrained.load_image_encoder(settings.image_encoder, **options)
    else:
        image_encoder = build_image_encoder(size["image_encoder"], **options)
    approximate = settings.text_gelu != "exact"
    if settings.text_encoder:
        with concerning("text_encoder"):
            text_encoder = pretrained.load_text_encoder(
                settings.text_encoder, approximate, pooling=settings.text_pooling
            )
        check_sequence_length(text_encoder, preprocessor)
    else:
        text_encoder = build_text_encoder(
            size["text_encoder"],
            len(preprocessor.vocabulary),
            preprocessor.sequence_length,
            approximate_gelu=approximate,
            pooling=settings.text_pooling,
        )
    width = settings.projection_dim or size["projection_dim"]
    return AlignBackbone(
        image_encoder,
        text_encoder,
        width,
        image_feature_dropout=settings.image_feature_dropout,
        name=settings.preset,
    )


def check_sequence_length(text_encoder: TextEncoder, preprocessor: AlignPreprocessor) -> None:
    """Raises InputError if captions may be longer than a pretrained text tower supports."""
    positions = text_encoder.backbone_config["max_sequence_length"]
    if preprocessor.sequence_length > positions:
        raise InputError(
            f"{preprocessor.sequence_length} is more than the {positions} positions of the model",
            remedy=f"lower <sequence_length> to {positions} or less",
            setting="sequence_length",
        )


def load_start(settings: ModelSettings, preprocessor: AlignPreprocessor) -> AlignDualEncoder:
    """Loads the model to start from, and gives it this run's preprocessor."""
    with concerning("model"):
        model = load_model(
            settings.model, dtype=settings.precision, min_temperature=settings.min_temperature
        )
    check_sequence_length(model.backbone.text_encoder, preprocessor)
    model.preprocessor = preprocessor
    model.backbone.image_encoder.synchronized_batch_norm = settings.synchronized_batch_norm
    return model


def compile_model(
    model: AlignDualEncoder,
    settings: OptimizerSettings,
    steps: int,
    frozen: Mapping[str, int | None],
) -> None:
    """Gives a model its optimizer and loss; ``frozen`` is a result of ``frozen_towers``."""
    rates = settings.image_rate_factor, settings.text_rate_factor, settings.layer_decay
    first_steps = {
        weight.path: last
        for name, last in frozen.items()
        for weight in getattr(model.backbone, name).trainable_variables
        if last
    }
    optimizer = make_optimizer(
        settings.optimizer,
        make_schedule(settings.schedule, settings.learning_rate, settings.warmup_steps, steps),
        model.trainable_variables,
        weight_decay=settings.weight_decay,
        exclude_from_decay=settings.exclude_from_decay,
        exclude_from_adaptation=settings.exclude_from_adaptation,
        ema_momentum=settings.ema_momentum,
        factors=factors_by_path(model.backbone, *rates) if rates != (1.0, 1.0, 1.0) else None,
        first_steps=first_steps,
    )
    model.compile(
        optimizer,
        label_smoothing=settings.label_smoothing,
        mask_false_negatives=settings.mask_false_negatives,
        global_clipnorm=settings.global_clipnorm or None,
        loss_tile_rows=settings.loss_tile_rows,
        micro_batch_size=settings.micro_batch_size or None,
        rematerialize=settings.rematerialize,
        space_to_batch=settings.space_to_batch,
    )
