"""The model of a pretraining run: built from its settings or loaded, and compiled."""

from run_presets import load_model

from align_keras import (
    AlignBackbone,
    AlignDualEncoder,
    WarmupLinearDecay,
    build_image_encoder,
    build_text_encoder,
    optimizers,
)
from align_keras.models import pretrained
from align_keras.models.presets import PRESETS


def make_backbone(settings, preprocessor):
    """Builds both towers, or starts them from keras-hub presets."""
    size = PRESETS[settings.preset]
    options = {"synchronized_batch_norm": settings.synchronized_batch_norm}
    if settings.image_encoder:
        image_encoder = pretrained.load_image_encoder(settings.image_encoder, **options)
    else:
        image_encoder = build_image_encoder(size["image_encoder"], **options)
    if settings.text_encoder:
        text_encoder = pretrained.load_text_encoder(settings.text_encoder)
    else:
        text_encoder = build_text_encoder(
            size["text_encoder"], len(preprocessor.vocabulary), settings.sequence_length
        )
    return AlignBackbone(image_encoder, text_encoder, size["projection_dim"], name=settings.preset)


def load_start(settings, preprocessor):
    """Loads the model of --model, to go on with this run's preprocessor."""
    model = load_model(
        settings.model, dtype=settings.precision, min_temperature=settings.min_temperature
    )
    positions = model.backbone.text_encoder.backbone_config["max_sequence_length"]
    if settings.sequence_length > positions:
        raise ValueError(
            f"--sequence-length: {settings.sequence_length} is more than the {positions} that "
            f"--model has positions for; lower it to {positions} or less"
        )
    model.preprocessor = preprocessor
    model.backbone.image_encoder.synchronized_batch_norm = settings.synchronized_batch_norm
    return model


def make_model(settings, preprocessor):
    """Builds or loads the dual encoder, and compiles it; to be called in the strategy's scope."""
    if settings.model:
        model = load_start(settings, preprocessor)
    else:
        model = AlignDualEncoder(
            make_backbone(settings, preprocessor),
            preprocessor,
            initial_temperature=settings.initial_temperature,
            min_temperature=settings.min_temperature,
        )
    learning_rate = WarmupLinearDecay(settings.learning_rate, settings.warmup_steps, settings.steps)
    optimizer = optimizers.make_optimizer(
        settings.optimizer,
        learning_rate,
        model.trainable_variables,
        weight_decay=settings.weight_decay,
        exclude_from_decay=settings.exclude_from_decay,
        exclude_from_adaptation=settings.exclude_from_adaptation,
        ema_momentum=settings.ema_momentum,
    )
    model.compile(
        optimizer,
        label_smoothing=settings.label_smoothing,
        mask_false_negatives=settings.mask_false_negatives,
        global_clipnorm=settings.global_clipnorm or None,
        loss_tile_rows=settings.loss_tile_rows,
        micro_batch_size=settings.micro_batch_size or None,
        rematerialize=settings.rematerialize,
    )
    return model
