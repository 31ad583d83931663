"""The settings of fine-tuning a classifier.

Every field is a flag of ``finetune_classification.py``, those of a phase behind its name:
``--full.learning-rate=0.01``.
"""

import dataclasses
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes

from align_keras import paths
from align_keras.errors import InputError
from align_keras.runs import trackers
from align_keras.runs.setting_values import check_license
from align_keras.runs.settings import (
    FREE_ON_RESUME,
    Above,
    AtLeast,
    AtMost,
    Below,
    Part,
    Settings,
)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One of the two phases of fine-tuning."""

    learning_rate: Annotated[float, AtLeast(0.0)] = 0.01
    """At the start."""
    epochs: Annotated[int, AtLeast(0)] = 0
    """Passes over the training images; 0 where steps are given."""
    steps: Annotated[int, AtLeast(0)] = 0
    """Optimizer steps; 0 where epochs are given."""
    backbone_factor: Annotated[float, AtLeast(0.0)] = 1.0
    """Factor on the learning rate of all weights but the head's."""
    frozen_statistics: bool = False
    """Batch norm keeps its moving statistics; scales and offsets are trained."""
    image_size: Annotated[int | None, AtLeast(8)] = None
    """Pixels of training images. None: the model's own."""
    eval_size: Annotated[int | None, AtLeast(8)] = None
    """Pixels of images in evaluation. None: as in training."""

    def num_steps(self, images: int, batch_size: int) -> int:
        """Optimizer steps on a number of training images."""
        return self.steps or max(1, self.epochs * images // batch_size)


@dataclasses.dataclass(frozen=True)
class StartSettings(Part):
    """The model that is fine-tuned, and the name of what it learns."""

    model: Annotated[str, paths.PRESET] = ""
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    task: str = ""
    """The name of the data set: a known one (imagenet, cifar10, cifar100, food101, pets, flowers,
    cars, dtd, caltech101, eurosat, stl10, ...) or any other beside --data."""


@dataclasses.dataclass(frozen=True)
class LabelledDataSettings(Part):
    """Images with classes, and how they are cropped."""

    data: Annotated[str, paths.DATA] = ""
    """Evaluation data: tfds:NAME; a table (.jsonl, .csv, .tsv, .parquet) with the columns
    image and class_name or label; a folder with a folder of images a class; a quoted pattern of
    shards. Empty: the data set's name in TFDS."""
    split: str = ""
    """Of TFDS, a table's column split, or a folder in the folder. Empty: the data set's own, or
    test."""
    train_data: Annotated[str, paths.DATA] = ""
    """Training data, as --data. Empty: --data, with --train-split."""
    train_split: str = ""
    """As --split, for the training images. Empty: the data set's own, or train."""
    select: tuple[str, ...] = ()
    """Keep only the rows of a table with these values, as in: --select kids=False."""
    images: Annotated[str, paths.FILES] = ""
    """Folder of the images. Empty: the folder of the table."""
    class_names: Annotated[str, paths.FILES] = ""
    """A text file with a class name a line, in the order of the labels. Empty: CLIP's for the data
    set, or the data's own."""
    min_crop_area: Annotated[float, Above(0.0), AtMost(1.0)] = 0.08
    """The least share of an image that a training crop covers."""
    eval_crop: Annotated[float, Above(0.0), AtMost(1.0)] = 0.875
    """The share of its sides that the centre crop of evaluation covers."""
    shuffle_buffer: Annotated[int, AtLeast(1)] = 4_096
    """Encoded images among which the order is random. Tables and folders are shuffled before."""
    max_skipped_share: Annotated[float, AtLeast(0.0), AtMost(1.0), FREE_ON_RESUME] = 0.01
    """A phase stops, with a checkpoint, once more than this share of the training images of an
    epoch was skipped: images that do not decode, corrupt records, lost files."""

    @property
    def trained_on(self) -> str:
        """The setting that gives the training images."""
        return "train_data" if self.train_data else "data"


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Part):
    """What both phases share."""

    schedule: Literal["drops", "cosine"] = "drops"
    """The learning rate of a phase: 0.2 of it after 30, 60 and 90 % of its steps, or down to 0 as a
    cosine."""
    batch_size: Annotated[int, AtLeast(1)] = 1_024
    """Images a step over all replicas."""
    momentum: Annotated[float, AtLeast(0.0), Below(1.0)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, AtLeast(0.0)] = 0.0
    """L2, of kernels; biases and norms are exempt."""
    rematerialize: Annotated[bool, FREE_ON_RESUME] = False
    """Computes activations again in the backward pass: less memory, more time."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """What the tower computes in; the head and all weights are float32."""


@dataclasses.dataclass(frozen=True)
class RunSettings(Part):
    """Where it runs, and what it leaves."""

    eval_batch_size: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 64
    """Images evaluated at a time."""
    seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0
    """Decides data order and crops."""
    strategy: Annotated[Literal["auto", "cpu", "mirrored", "tpu"], FREE_ON_RESUME] = "auto"
    """Where it runs: auto takes all GPUs or else the CPU."""
    tpu: Annotated[str, FREE_ON_RESUME] = "local"
    """Name or address of the TPU for --strategy=tpu; local is this machine's."""
    workdir: Annotated[str, paths.FILES, FREE_ON_RESUME] = ""
    """The run's directory, also gs://...; the same command with the same directory resumes. Empty:
    a new one below runs/."""
    experiment: Annotated[str, FREE_ON_RESUME] = ""
    """Name of the experiment that the defaults are of."""
    tracker: Annotated[str, FREE_ON_RESUME] = ""
    """Where lines of the log and settings go beside TensorBoard's logs/, which are always written:
    mlflow, wandb or trackio, several joined by commas."""
    license: Annotated[str, FREE_ON_RESUME] = ""
    """Of the model, for its card: an identifier of Hugging Face's hub, such as apache-2.0. Empty:
    the card says that there is none."""
    checkpoint_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 1_000
    """Steps between checkpoints; each phase keeps its newest three."""
    log_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 50
    """Steps between lines of the logs."""


@dataclasses.dataclass(frozen=True)
class ClassificationSettings(Settings):
    """Fine-tunes the image tower of a preset or a finished run on labelled images."""

    start: OmitArgPrefixes[StartSettings] = StartSettings()
    data: OmitArgPrefixes[LabelledDataSettings] = LabelledDataSettings()
    head: Phase = Phase(0.1, epochs=100)
    """First the head alone, on the features of the frozen tower."""
    full: Phase = Phase(0.01, epochs=100)
    """Then all weights."""
    training: OmitArgPrefixes[TrainingSettings] = TrainingSettings()
    run: OmitArgPrefixes[RunSettings] = RunSettings()

    def check(self) -> None:
        """Checks all that needs no data, no model and no device.

        Raises:
            InputError: names the setting and says what to do.
        """
        super().check()
        check_license(self.run.license)
        trackers.names_of(self.run.tracker)
        if {"/", "\\"} & set(self.start.task):
            raise InputError(
                f"{self.start.task} is no name", remedy="give its place as <data>", setting="task"
            )
        for name, phase in (("head", self.head), ("full", self.full)):
            if (phase.epochs > 0) == (phase.steps > 0):
                raise InputError(
                    f"{phase.steps}, beside {phase.epochs} epochs",
                    remedy=f"set <{name}.steps> or <{name}.epochs> above 0 and the other to 0",
                    setting=f"{name}.steps",
                )
