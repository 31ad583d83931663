"""The settings of fine-tuning a classifier, and the paper's two recipes.

Every field of ``ClassificationSettings`` is a flag of ``finetune_classification.py``; those of its
phases are too: ``--full.learning-rate=0.01``.
"""

import dataclasses
import json
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Phase:
    """One of the two phases of fine-tuning."""

    learning_rate: float
    """At the start."""
    epochs: int = 0
    """Passes over the training images; 0 where steps are given."""
    steps: int = 0
    """Optimizer steps; 0 where epochs are given."""
    backbone_factor: float = 1.0
    """What the learning rate of all but the head is multiplied by."""
    frozen_statistics: bool = False
    """Whether batch norm keeps to its moving statistics; scales and offsets are trained."""
    image_size: int | None = None
    """Pixels of training images. None: the model's own."""
    eval_size: int | None = None
    """Pixels of images in evaluation. None: as in training."""

    def num_steps(self, images, batch_size):
        """Optimizer steps on so many training images."""
        return self.steps or max(1, self.epochs * images // batch_size)


@dataclasses.dataclass(frozen=True)
class ClassificationSettings:
    """Fine-tunes the image tower of a preset or a finished run on labelled images."""

    model: str
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    task: str
    """The name of the data set: a known one (imagenet, cifar10, cifar100, food101, pets, flowers,
    cars, dtd, caltech101, eurosat, stl10, ...) or any other beside --data."""

    # === Data ===
    data: str = ""
    """What is evaluated on: tfds:NAME; a table (.jsonl, .csv, .tsv, .parquet) with the columns
    image and class_name or label; a folder with a folder of images a class; a quoted pattern of
    shards. Empty: the data set's name in TFDS."""
    split: str = ""
    """Of TFDS, a table's column split, or a folder in the folder. Empty: the data set's own, or
    test."""
    train_data: str = ""
    """What is trained on, as --data. Empty: --data, with --train-split."""
    train_split: str = ""
    """As --split, for the training images. Empty: the data set's own, or train."""
    select: tuple[str, ...] = ()
    """Keep only the rows of a table with these values, as in: --select kids=False."""
    images: str = ""
    """Folder of the images. Empty: the folder of the table."""
    class_names: str = ""
    """A text file with a class name a line, in the order of the labels. Empty: CLIP's for the data
    set, or the data's own."""
    min_crop_area: float = 0.08
    """The least share of an image that a training crop covers."""
    eval_crop: float = 0.875
    """The share of its sides that the centre crop of evaluation covers."""
    shuffle_buffer: int = 4_096
    """Encoded images among which the order is random. Tables and folders are shuffled before."""

    # === Training ===
    head: Phase = Phase(0.1, epochs=100)
    """First the head alone, on the features of the frozen tower."""
    full: Phase = Phase(0.01, epochs=100)
    """Then all weights."""
    schedule: Literal["drops", "cosine"] = "drops"
    """The learning rate of a phase: 0.2 of it after 30, 60 and 90 % of its steps, or down to 0 as a
    cosine."""
    batch_size: int = 1_024
    """Images a step over all replicas."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.0
    """L2, of the weights of two and more dimensions."""
    rematerialize: bool = False
    """Computes activations again in the backward pass: less memory, more time."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """What the tower computes in; the head and all weights are float32."""

    # === Run ===
    eval_batch_size: int = 64
    """Images evaluated at a time."""
    seed: int = 0
    """Decides data order and crops."""
    strategy: Literal["auto", "cpu", "mirrored", "tpu"] = "auto"
    """Where it runs: auto takes all GPUs or else the CPU."""
    tpu: str = "local"
    """Name or address of the TPU for --strategy=tpu; local is this machine's."""
    workdir: str = ""
    """The run's directory; the same command with the same directory resumes. Empty: a new one
    below runs/."""
    checkpoint_every: int = 1_000
    """Steps between checkpoints; each phase keeps its newest."""
    log_every: int = 50
    """Steps between lines of the logs."""

    def check(self):
        """Raises ValueError, with the flag and the mend, on values that cannot be."""
        for name in ("batch_size", "eval_batch_size", "shuffle_buffer", "checkpoint_every"):
            _check_at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        _check_at_least("--log-every", self.log_every, 1)
        for flag, share in (
            ("--min-crop-area", self.min_crop_area),
            ("--eval-crop", self.eval_crop),
        ):
            if not 0.0 < share <= 1.0:
                raise ValueError(f"{flag}: {share} is no share; give one above 0, 1 at most")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"--momentum: {self.momentum} is not from 0 to below 1")
        _check_at_least("--weight-decay", self.weight_decay, 0.0)
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"--seed: {self.seed} is not from 0 to {(1 << 32) - 1}")
        for name in ("head", "full"):
            phase = getattr(self, name)
            if (phase.epochs > 0) == (phase.steps > 0) or min(phase.epochs, phase.steps) < 0:
                raise ValueError(
                    f"--{name}.steps: {phase.steps}, and --{name}.epochs: {phase.epochs}; set one "
                    "of them above 0 and the other to 0"
                )
            _check_at_least(f"--{name}.learning-rate", phase.learning_rate, 0.0)
            _check_at_least(f"--{name}.backbone-factor", phase.backbone_factor, 0.0)
            for size in ("image_size", "eval_size"):
                if (pixels := getattr(phase, size)) is not None:
                    _check_at_least(f"--{name}.{size.replace('_', '-')}", pixels, 8)

    def as_json(self):
        """These settings as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def check_resumable(self, before, workdir):
        """Raises ValueError if a run that began with ``before`` cannot go on with these."""
        for name, value in json.loads(self.as_json()).items():
            if name not in _FREE_ON_RESUME and before.get(name) != value:
                raise ValueError(
                    f"--{name.replace('_', '-')}: the run in {workdir} began with "
                    f"{before.get(name)!r}, not {value!r}; resume with that, or give another "
                    "--workdir"
                )


def _check_at_least(flag, value, least):
    if not value >= least:
        raise ValueError(f"{flag}: {value} is below {least}; raise {flag} to {least} or more")


# What a resumed run may change: where it runs and what it reports.
_FREE_ON_RESUME = {
    "workdir",
    "strategy",
    "tpu",
    "eval_batch_size",
    "checkpoint_every",
    "log_every",
    "rematerialize",
}

# The paper's recipe for ImageNet. Expect a top-1 of about 85.5 with the frozen tower and of 88.64
# (top-5 98.67) after full fine-tuning of the headline model. Not run here.
#   python recipes/finetune_classification.py --model=RUN --task=imagenet
IMAGENET = ClassificationSettings(
    model="",
    task="",
    head=Phase(0.1, epochs=100, image_size=289, eval_size=360),
    full=Phase(0.01, epochs=100, backbone_factor=0.1, image_size=475, eval_size=600),
)

# The paper's recipe for the fine-grained sets. Expect a top-1 of about 99.65 on Flowers, 96.19 on
# Pets, 96.13 on Cars and 95.88 on Food101 from the headline model. Momentum is not stated there.
# Not run here.
#   python recipes/finetune_classification.py --experiment=fine_grained --model=RUN --task=pets
FINE_GRAINED = ClassificationSettings(
    model="",
    task="",
    head=Phase(1e-2, steps=20_000, image_size=289, eval_size=360),
    full=Phase(1e-3, steps=20_000, frozen_statistics=True, image_size=289, eval_size=360),
    schedule="cosine",
    batch_size=256,
    weight_decay=1e-5,
)

# Not in the paper: the fine-grained recipe in short, for hundreds or thousands of images at the
# model's own size; two CPU cores, a few minutes. Commands and figures: recipes/README.md.
SMALL_SET = dataclasses.replace(
    FINE_GRAINED,
    head=Phase(0.1, steps=300),
    full=Phase(3e-3, steps=600, frozen_statistics=True),
    min_crop_area=0.35,
    eval_crop=1.0,
    batch_size=64,
)

EXPERIMENTS = {"imagenet": IMAGENET, "fine_grained": FINE_GRAINED, "small_set": SMALL_SET}
