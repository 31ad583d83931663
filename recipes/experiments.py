"""The settings of a pretraining run, and named sets of them.

Every field of ``PretrainSettings`` is a flag of ``pretrain.py``: ``--batch-size=64``.
"""

import dataclasses
import json
from typing import Literal

from align_keras.models.presets import PRESETS


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """Trains ALIGN on TFRecord shards of image-text pairs."""

    # === Data ===
    train_data: str = ""
    """Pattern of the training shards, quoted, such as 'DIR/train-*.tfrecord', several joined by
    commas, or tfds:NAME. Empty (quickstart only): scenes are rendered into the run's directory."""
    eval_data: str = ""
    """Pattern of the held-out shards. Empty: no evaluation (with --train-data empty too:
    rendered scenes)."""
    zero_shot_data: str = ""
    """Pattern of shards whose records carry a class_name, for zero-shot classification.
    Empty: the held-out shards, if theirs do."""
    prompts: tuple[str, ...] = ("a photo of a {}", "{}")
    """Zero-shot prompts, separated by spaces; {} stands for the class name."""
    vocabulary: str = ""
    """Path of a BERT vocab.txt. Empty: trained on the training captions."""
    vocabulary_size: int = 100_000
    """Word pieces of a trained vocabulary, at most."""
    vocabulary_captions: int = 1_000_000
    """Captions to train the vocabulary on, at most."""
    resize_size: int | None = None
    """Pixels: images are stretched to this square. None: 346, or what --model has, larger or
    smaller as --image-size is."""
    image_size: int | None = None
    """Pixels: and cropped to this square, at random in training, at the centre else. None: 289,
    or what --model has."""
    antialias: bool = False
    """Averages pixels where images get smaller, as Pillow does; slower than sampling. Where
    --model does, this does not turn it off."""
    sequence_length: int | None = None
    """Word pieces a caption, [CLS] and [SEP] included. None: 64, or what --model has."""
    shuffle_buffer: int = 10_000
    """Encoded records among which the order is random."""

    # === Model ===
    model: str = ""
    """Starts from a trained model: a preset (a folder, hf://... or kaggle://...), or the
    directory of a run that has one. It brings its towers, temperature, vocabulary and, but for
    what is given beside it, the sizes of images and captions; those of --experiment are left out.
    Empty: the model is made of the settings below."""
    preset: str = "align_b7_base"
    """Size of the towers: align_l2_large, align_b7_base, align_b5_base, align_b3_mini or
    align_nano_tiny."""
    image_encoder: str = ""
    """Starts the image tower from a keras-hub EfficientNet: a preset's name such as
    efficientnet_b0_ra_imagenet, a folder, hf://... or kaggle://... Empty: the size of --preset,
    random weights."""
    text_encoder: str = ""
    """Starts the text tower from a keras-hub BERT, whose vocabulary is then used: a preset's name
    such as bert_base_en_uncased, a folder, hf://... or kaggle://... Empty: the size of --preset,
    random weights."""
    synchronized_batch_norm: bool = True
    """Batch statistics over all replicas instead of each one's own share."""
    initial_temperature: float = 1.0
    """Of the softmax; a run of a few thousand steps needs a start near 0.1."""
    min_temperature: float = 0.005
    """Floor of the temperature."""

    # === Loss and optimizer ===
    label_smoothing: float = 0.1
    """Fraction of each softmax target that is spread over all pairs."""
    mask_false_negatives: bool = True
    """Pairs that share an image id or a caption are not each other's negatives; off gives the
    paper's loss."""
    optimizer: Literal["lamb", "adamw", "sgd", "adafactor"] = "lamb"
    """LAMB as published, AdamW, SGD with momentum 0.9, or Adafactor."""
    learning_rate: float = 1e-3
    """At its peak, after the warm-up."""
    warmup_steps: int = 10_000
    """Steps over which the learning rate rises from 0; it falls to 0 over the others."""
    weight_decay: float = 1e-5
    """Of the weights of two and more dimensions."""
    exclude_from_decay: tuple[str, ...] = ()
    """Regular expressions; weights with a match in their path get no decay either, as
    embedding for BERT's tables."""
    exclude_from_adaptation: tuple[str, ...] = ()
    """Likewise for LAMB's layer adaptation; these move at the plain learning rate."""
    ema_momentum: float = 0.0
    """Of a moving average of the weights, such as 0.999, which is then what is evaluated and
    saved as preset/; 0 for none."""
    global_clipnorm: float = 0.0
    """Bound on the norm of all gradients together; 0 for none."""
    loss_tile_rows: int | None = None
    """Rows of the matrix of similarities that the loss holds at once, on each replica; 0 for the
    whole matrix. None: the whole up to 4 million of them (2,048 pairs on one replica), above that
    8 MiB, but 64 rows at least."""
    micro_batch_size: int = 0
    """Pairs of a replica whose activations are in memory at once; the gradient stays that of the
    whole batch, save that batch norm sees micro-batches. 0 for all pairs."""
    rematerialize: bool = False
    """Keeps only what enters each block of the towers and computes the rest again in the backward
    pass: less memory, more time."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """What the towers compute in; embeddings, loss and weights are float32. For float16 the loss
    is scaled."""

    # === Run ===
    batch_size: int = 16_384
    """Pairs a step over all replicas, every one a negative of the others."""
    steps: int = 1_200_000
    """Optimizer steps."""
    seed: int = 0
    """Decides weights, data order, crops and dropout."""
    strategy: Literal["auto", "cpu", "mirrored", "multi_worker", "tpu"] = "auto"
    """Where it runs: auto takes all GPUs or else the CPU."""
    tpu: str = "local"
    """Name or address of the TPU for --strategy=tpu; local is this machine's."""
    workdir: str = ""
    """The run's directory; the same command with the same directory resumes. Empty: a new one
    below runs/."""
    eval_every: int = 10_000
    """Steps between evaluations."""
    checkpoint_every: int = 5_000
    """Steps between checkpoints; the newest three and the best are kept."""
    log_every: int = 100
    """Steps between lines of the log."""

    def check(self):
        """Raises ValueError, with the flag and the mend, on values that cannot be."""
        least = {
            "vocabulary_size": 100,
            "vocabulary_captions": 1,
            "image_size": 8,
            "resize_size": self.image_size,
            "sequence_length": 3,
            "shuffle_buffer": 1,
            "learning_rate": 0.0,
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "global_clipnorm": 0.0,
            "ema_momentum": 0.0,
            "micro_batch_size": 0,
            "label_smoothing": 0.0,
            "initial_temperature": self.min_temperature,
            "batch_size": 2,
            "steps": 1,
            "eval_every": 1,
            "checkpoint_every": 1,
            "log_every": 1,
            "seed": 0,
        }
        most = {
            "label_smoothing": 1.0,
            "warmup_steps": self.steps - 1,
            "ema_momentum": 0.999999,
            "seed": 2**32 - 1,
        }
        # Bounds that come from another flag, which may be the one to change.
        others = {
            "resize_size": ", or lower --image-size",
            "initial_temperature": ", or lower --min-temperature",
            "warmup_steps": ", or raise --steps",
        }
        if not self.min_temperature > 0.0:
            raise ValueError(
                f"--min-temperature: {self.min_temperature} is not above 0; give one such as 0.005"
            )
        for bounds, wrong, mend, direction in (
            (least, "below", "raise", "more"),
            (most, "above", "lower", "less"),
        ):
            for name, bound in bounds.items():
                flag, value = flag_of(name), getattr(self, name)
                if not (value >= bound if bounds is least else value <= bound):
                    raise ValueError(
                        f"{flag}: {value} is {wrong} {bound}; {mend} {flag} to {bound} or "
                        f"{direction}{others.get(name, '')}"
                    )
        if self.preset not in PRESETS:
            names = ", ".join(sorted(PRESETS))
            raise ValueError(f"--preset: no {self.preset!r}; choose one of {names}")
        if not self.prompts:
            raise ValueError("--prompts: give at least one, such as 'a photo of a {}'")
        for prompt in self.prompts:
            if "{}" not in prompt:
                raise ValueError(f"--prompts: no {{}} for the class name in {prompt!r}")
        if self.loss_tile_rows is not None and self.loss_tile_rows < 0:
            raise ValueError(f"--loss-tile-rows: {self.loss_tile_rows} is below 0; give 0 or more")
        if self.text_encoder and self.vocabulary:
            raise ValueError("--vocabulary: --text-encoder brings its own; leave one of them out")
        for name in ("image_encoder", "text_encoder", "vocabulary"):
            if self.model and getattr(self, name):
                raise ValueError(f"{flag_of(name)}: --model brings its own; leave one of them out")
        if self.model and not self.train_data:
            raise ValueError("--model without --train-data: give both")
        if self.eval_data and not self.train_data:
            raise ValueError("--eval-data without --train-data: give both")

    def as_json(self):
        """These settings as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def check_resumable(self, before, workdir):
        """Raises ValueError if a run that began with ``before`` cannot go on with these."""
        # What a setting was before there was one.
        before = {**json.loads(PretrainSettings().as_json()), **before}
        for name, value in sorted(json.loads(self.as_json()).items()):
            if name not in _FREE_ON_RESUME and before[name] != value:
                raise ValueError(
                    f"{flag_of(name)}: the run in {workdir} began with {before[name]!r}, not "
                    f"{value!r}; resume with that, or give another --workdir"
                )


def flag_of(name):
    """The flag of a setting: ``batch_size`` -> ``--batch-size``."""
    return "--" + name.replace("_", "-")


#: The paper's, for what is neither given nor of --model (sec. 5).
PAPER_SIZES = {"image_size": 289, "resize_size": 346, "sequence_length": 64}

#: What comes with --model: cannot be given beside it.
BROUGHT_BY_MODEL = (
    "preset",
    "image_encoder",
    "text_encoder",
    "initial_temperature",
    "vocabulary",
    "vocabulary_size",
    "vocabulary_captions",
)


def pick_experiment(arguments, default, names):
    """Takes ``--experiment=NAME`` out of the flags: its name, and the others.

    Raises:
        ValueError: if it is none of ``names``.
    """
    name, others = default, []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--experiment":
            name = next(remaining, "")
        elif argument.startswith("--experiment="):
            name = argument.partition("=")[2]
        else:
            others.append(argument)
    if name not in names:
        raise ValueError(f"--experiment: no {name!r}; choose one of {', '.join(names)}")
    return name, others


# What a resumed run may change: where it runs, what it reports, when, and what tames it.
_FREE_ON_RESUME = {
    "workdir",
    "strategy",
    "tpu",
    "eval_every",
    "checkpoint_every",
    "log_every",
    "eval_data",
    "zero_shot_data",
    "prompts",
    "learning_rate",
    "global_clipnorm",
    "loss_tile_rows",
    "rematerialize",
}


# `make pretrain`: rendered scenes; two CPU cores, about five minutes.
QUICKSTART = PretrainSettings(
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
PRODUCTS_NANO = dataclasses.replace(
    QUICKSTART,
    prompts=("{}", "men {}", "women {}", "a photo of a {}"),
    vocabulary_size=8_000,
    warmup_steps=200,
    batch_size=256,
    steps=3_000,
    eval_every=500,
    checkpoint_every=500,
    log_every=50,
)

# The paper's CC3M ablation: a tenth of the ablations' 1M steps. Expect COCO R@1 of about
# 22.1 (image to text) and 17.3 (text to image), ImageNet KNN 48.9. Not run here.
#   python recipes/pretrain.py --experiment=cc3m_b3_mini --train-data='CC3M/*.tfrecord'
CC3M_B3_MINI = PretrainSettings(preset="align_b3_mini", steps=100_000)

# Sec. 6.1, the ablations of width, negatives and temperature: expect COCO R@1 of about 51.7 and
# 37.5, ImageNet KNN 64.6 from 1.8B pairs. Not run here.
ALIGN_B5_BASE = PretrainSettings(preset="align_b5_base", steps=1_000_000)

# Sec. 6.1, the ablations' B7 + BERT-base: expect COCO R@1 of about 55.4 and 41.7, ImageNet
# KNN 69.3 from 1.8B pairs. Not run here.
ALIGN_B7_BASE = PretrainSettings(preset="align_b7_base", steps=1_000_000)

# Sec. 5, the headline model: expect zero-shot ImageNet top-1 of 76.4 from 1.8B pairs on 1,024
# TPUv3 cores. Not run here.
ALIGN_L2_LARGE = PretrainSettings(preset="align_l2_large")

# Fine-tuning for retrieval. The paper gives batch, learning rate, decay and steps; that LAMB and
# its weight decay stay those of pretraining is chosen here. Expect Flickr30K R@1 of about 95.3
# (image to text) and 84.9 (text to image) from the headline model. Not run here.
#   python recipes/finetune_retrieval.py --model=RUN --train-data='FLICKR30K/train-*.tfrecord' \
#       --eval-data='FLICKR30K/test-*.tfrecord'
FINETUNE_FLICKR30K = PretrainSettings(
    learning_rate=1e-5,
    warmup_steps=0,
    batch_size=2_048,
    steps=3_000,
    eval_every=500,
    checkpoint_every=500,
    log_every=50,
)

# The same for twice as long: expect COCO 5K R@1 of about 77.0 and 59.9. Not run here.
#   python recipes/finetune_retrieval.py --experiment=finetune_coco --model=RUN ...
FINETUNE_COCO = dataclasses.replace(FINETUNE_FLICKR30K, steps=6_000)

EXPERIMENTS = {
    "quickstart": QUICKSTART,
    "products_nano": PRODUCTS_NANO,
    "cc3m_b3_mini": CC3M_B3_MINI,
    "align_b5_base": ALIGN_B5_BASE,
    "align_b7_base": ALIGN_B7_BASE,
    "align_l2_large": ALIGN_L2_LARGE,
    "finetune_flickr30k": FINETUNE_FLICKR30K,
    "finetune_coco": FINETUNE_COCO,
}
