"""The named experiments, and functions that read a recipe's flags on top of them.

An experiment is a set of settings. ``--experiment=NAME`` makes its values the defaults; other flags
override them.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from align_keras.errors import InputError
from align_keras.runs import command
from align_keras.runs.classification_settings import ClassificationSettings, Phase
from align_keras.runs.flags import WITHOUT_PREFIX
from align_keras.runs.pretraining_parts import PAPER_SIZES
from align_keras.runs.pretraining_settings import (
    BROUGHT_BY_MODEL,
    PretrainSettings,
    brought_by_model,
)
from align_keras.runs.settings import COMMON, Heading
from align_keras.wording import choose

# === Pretraining, and fine-tuning for retrieval ===

# `make pretrain`: rendered scenes; two CPU cores, about seven minutes.
QUICKSTART = PretrainSettings().replace(
    preset="align_nano_tiny",
    prompts=("{}", "a {}", "photo of a {}"),
    vocabulary_size=2_000,
    resize_size=72,
    image_size=64,
    sequence_length=24,
    initial_temperature=0.1,
    optimizer="adamw",
    learning_rate=2e-3,
    warmup_steps=100,
    weight_decay=1e-2,
    batch_size=128,
    steps=1_300,
    eval_every=200,
    checkpoint_every=400,
    log_every=20,
)

# The nano model on tens of thousands of small product photographs with shop titles; two CPU
# cores, under half an hour. Commands and figures: recipes/README.md.
PRODUCTS_NANO = QUICKSTART.replace(
    prompts=("{}", "men {}", "women {}", "a photo of a {}"),
    vocabulary_size=8_000,
    warmup_steps=200,
    batch_size=256,
    steps=3_000,
    eval_every=500,
    checkpoint_every=500,
    log_every=50,
)

# Frozen pretrained towers and a few thousand photographs with five sentences each: only the
# projections and the temperature are trained. The towers are an EfficientNet-Lite0 trained on
# ImageNet and a sentence BERT. Commands and figures: recipes/README.md.
#   python recipes/pretrain.py --experiment=flickr8k_lite0 --image-encoder=LITE0 \
#       --text-encoder=MINILM --train-data='shards/train-*.tfrecord'
FLICKR8K_LITE0 = QUICKSTART.replace(
    prompts=("a photo of a {}", "{}", "a picture of a {}", "a {} in the scene"),
    freeze="image_encoder,text_encoder",
    cache_features=3,
    image_feature_dropout=0.5,
    top_convolution=True,
    text_pooling="mean",
    projection_dim=512,
    image_size=224,
    resize_size=224,
    sequence_length=48,
    initial_temperature=0.07,
    label_smoothing=0.0,
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=50,
    batch_size=512,
    steps=1_200,
    eval_every=1_200,
    checkpoint_every=600,
    log_every=50,
)

# The paper's CC3M ablation, with a tenth of the other ablations' 1M steps. Expect COCO R@1 of about
# 22.1 (image to text) and 17.3 (text to image), ImageNet KNN 48.9. Not run here.
#   python recipes/pretrain.py --experiment=cc3m_b3_mini --train-data='CC3M/*.tfrecord'
CC3M_B3_MINI = PretrainSettings().replace(preset="align_b3_mini", steps=100_000)

# Sec. 6.1, the ablations of width, negatives and temperature: expect COCO R@1 of about 51.7 and
# 37.5, ImageNet KNN 64.6 from 1.8B pairs. Not run here.
ALIGN_B5_BASE = PretrainSettings().replace(preset="align_b5_base", steps=1_000_000)

# Sec. 6.1, the ablations' B7 + BERT-base: expect COCO R@1 of about 55.4 and 41.7, ImageNet
# KNN 69.3 from 1.8B pairs. Not run here.
ALIGN_B7_BASE = PretrainSettings().replace(preset="align_b7_base", steps=1_000_000)

# Sec. 5, the headline model: expect zero-shot ImageNet top-1 of 76.4 from 1.8B pairs on 1,024
# TPUv3 cores. Not run here.
ALIGN_L2_LARGE = PretrainSettings().replace(preset="align_l2_large")

# Fine-tuning for retrieval. Batch size, learning rate, its decay and steps are the paper's; we keep
# LAMB and its weight decay from pretraining. Expect Flickr30K R@1 of about 95.3
# (image to text) and 84.9 (text to image) from the headline model. Not run here.
#   python recipes/finetune_retrieval.py --experiment=finetune_flickr30k --model=RUN \
#       --train-data='FLICKR30K/train-*.tfrecord' --eval-data='FLICKR30K/test-*.tfrecord'
FINETUNE_FLICKR30K = PretrainSettings().replace(
    learning_rate=1e-5,
    warmup_steps=0,
    batch_size=2_048,
    steps=3_000,
    eval_every=500,
    checkpoint_every=500,
    log_every=50,
)

# Fine-tuning on COCO takes twice as many steps: expect COCO 5K R@1 of about 77.0 and 59.9. Not run
# here.
#   python recipes/finetune_retrieval.py --experiment=finetune_coco --model=RUN ...
FINETUNE_COCO = FINETUNE_FLICKR30K.replace(steps=6_000)

PRETRAINING = {
    "quickstart": QUICKSTART,
    "products_nano": PRODUCTS_NANO,
    "flickr8k_lite0": FLICKR8K_LITE0,
    "cc3m_b3_mini": CC3M_B3_MINI,
    "align_b5_base": ALIGN_B5_BASE,
    "align_b7_base": ALIGN_B7_BASE,
    "align_l2_large": ALIGN_L2_LARGE,
    "finetune_flickr30k": FINETUNE_FLICKR30K,
    "finetune_coco": FINETUNE_COCO,
}
PRETRAINING = {name: own.replace(experiment=name) for name, own in PRETRAINING.items()}

# === Fine-tuning a classifier ===

# The paper's recipe for ImageNet. Expect a top-1 of about 85.5 with the frozen tower and of 88.64
# (top-5 98.67) after full fine-tuning of the headline model. Not run here.
#   python recipes/finetune_classification.py --model=RUN --task=imagenet
IMAGENET = ClassificationSettings().replace(
    head=Phase(0.1, epochs=100, image_size=289, eval_size=360),
    full=Phase(0.01, epochs=100, backbone_factor=0.1, image_size=475, eval_size=600),
)

# The paper's recipe for the fine-grained sets. Expect a top-1 of about 99.65 on Flowers, 96.19 on
# Pets, 96.13 on Cars and 95.88 on Food101 from the headline model. The paper does not state
# the momentum. Not run here.
#   python recipes/finetune_classification.py --experiment=fine_grained --model=RUN --task=pets
FINE_GRAINED = ClassificationSettings().replace(
    head=Phase(1e-2, steps=20_000, image_size=289, eval_size=360),
    full=Phase(1e-3, steps=20_000, frozen_statistics=True, image_size=289, eval_size=360),
    schedule="cosine",
    batch_size=256,
    weight_decay=1e-5,
)

# Not in the paper: a short form of the fine-grained recipe, for hundreds or thousands of images at
# the model's own size; two CPU cores, a few minutes. Commands and figures: recipes/README.md.
SMALL_SET = FINE_GRAINED.replace(
    head=Phase(0.1, steps=300),
    full=Phase(3e-3, steps=600, frozen_statistics=True),
    min_crop_area=0.35,
    eval_crop=1.0,
    batch_size=64,
)

CLASSIFICATION = {"imagenet": IMAGENET, "fine_grained": FINE_GRAINED, "small_set": SMALL_SET}
CLASSIFICATION = {name: own.replace(experiment=name) for name, own in CLASSIFICATION.items()}

# === Flags ===


@dataclasses.dataclass(frozen=True)
class _Pretraining:
    """An experiment, and the settings that result from it and the other flags."""

    experiment: Annotated[Literal[tuple(PRETRAINING)], COMMON, Heading("experiment")]
    """Picks the defaults of all other flags."""
    settings: Annotated[PretrainSettings, WITHOUT_PREFIX]


@dataclasses.dataclass(frozen=True)
class _Classification:
    """Like ``_Pretraining``, for a classifier."""

    experiment: Annotated[Literal[tuple(CLASSIFICATION)], COMMON, Heading("experiment")]
    """Picks the defaults of all other flags."""
    settings: Annotated[ClassificationSettings, WITHOUT_PREFIX]


def read_pretraining(arguments: Sequence[str], default: str, description: str) -> PretrainSettings:
    """Reads the flags of a recipe that pretrains.

    Args:
        arguments: the flags.
        default: the experiment to use if ``--experiment`` is not given.
        description: description of the recipe, for ``--help``.

    Raises:
        InputError: if there is no such experiment, or a value is invalid.
    """
    name = _pick(arguments, default, PRETRAINING)
    flags = given(arguments)
    settings = PRETRAINING[name]
    if "model" in flags:
        settings = settings.replace(**dict.fromkeys(PAPER_SIZES))
        for setting in BROUGHT_BY_MODEL:
            if setting in flags:
                raise brought_by_model(setting)
    chosen = settings.run.steps
    default_flags = _Pretraining(name, settings)
    settings = command.parse(_Pretraining, arguments, default_flags, description).settings
    steps, warmup = settings.run.steps, settings.optimizer.warmup_steps
    if "warmup_steps" not in flags and 0 < steps <= warmup:
        # The run is shorter than the experiment's warm-up, which is therefore shortened in
        # proportion to the steps.
        settings = settings.replace(warmup_steps=warmup * steps // chosen)
    if name != "quickstart" and not settings.data.train_data:
        raise InputError(
            f"{name} needs training data",
            remedy="give <train_data>; only quickstart renders scenes",
            setting="experiment",
        )
    settings.check()
    return settings


def given(arguments: Sequence[str]) -> set[str]:
    """The names of the settings that are given as flags, including ``experiment``."""
    names = (argument.partition("=")[0].replace("-", "_") for argument in arguments)
    return {name[2:] for name in names if name.startswith("__")}


def read_classification(arguments: Sequence[str], description: str) -> ClassificationSettings:
    """Like ``read_pretraining``, for the recipe that fine-tunes a classifier."""
    name = _pick(arguments, "imagenet", CLASSIFICATION)
    default_flags = _Classification(name, CLASSIFICATION[name])
    settings = command.parse(_Classification, arguments, default_flags, description).settings
    for setting in ("model", "task"):
        if not settings.flat()[setting]:
            raise InputError("not given", remedy="see --help", setting=setting)
    settings.check()
    return settings


def _pick(arguments: Sequence[str], default: str, names: Iterable[str]) -> str:
    """The name in ``--experiment=NAME``: its values are the defaults of the other flags."""
    name = default
    for argument, following in itertools.pairwise((*arguments, "")):
        flag, has_value, value = argument.partition("=")
        if flag == "--experiment":
            name = value if has_value else following
    if name not in names:
        raise InputError(
            f"unknown experiment {name!r}", remedy=choose(name, names), setting="experiment"
        )
    return name
