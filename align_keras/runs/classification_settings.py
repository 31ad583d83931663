"""The settings of fine-tuning a classifier.

Every field is a flag of ``finetune_classification.py``. The flags of a phase begin with its name:
``--full.learning-rate=0.01``.
"""

import dataclasses
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes

from align_keras import paths
from align_keras.errors import InputError
from align_keras.runs.settings import (
    COMMON,
    FREE_ON_RESUME,
    Above,
    AtLeast,
    AtMost,
    Below,
    Part,
    Settings,
)
from align_keras.runs.shared_settings import SharedSettings
from align_keras.wording import counted


@dataclasses.dataclass(frozen=True)
class Phase:
    """One of the two phases of fine-tuning."""

    learning_rate: Annotated[float, AtLeast(0.0)] = 0.01
    """Learning rate at the start of the phase; it then follows --schedule."""
    epochs: Annotated[int, AtLeast(0)] = 0
    """Length of the phase in passes over the training images; 0 if its steps are given."""
    steps: Annotated[int, AtLeast(0)] = 0
    """Length of the phase in optimizer steps; 0 if its epochs are given."""
    backbone_factor: Annotated[float, AtLeast(0.0)] = 1.0
    """Factor on the learning rate of all weights except the head, such as 0.1."""
    frozen_statistics: bool = False
    """Batch norm keeps its moving statistics; its scales and offsets are still trained."""
    image_size: Annotated[int | None, AtLeast(8)] = None
    """Side of training images in pixels. None: the model's own."""
    eval_size: Annotated[int | None, AtLeast(8)] = None
    """Side of images in evaluation, in pixels. None: the same as in training."""

    def num_steps(self, images: int, batch_size: int) -> int:
        """Optimizer steps of the phase, for this number of training images."""
        return self.steps or max(1, self.epochs * images // batch_size)


@dataclasses.dataclass(frozen=True)
class StartSettings(Part):
    """The model to fine-tune, and the name of the data set."""

    model: Annotated[str, paths.PRESET, COMMON] = ""
    """The model to fine-tune: a preset (a folder, hf://... or kaggle://...), or the directory of a
    run that has saved one."""
    task: Annotated[str, COMMON] = ""
    """Name of the data set. Known names (imagenet, cifar10, cifar100, food101, pets, flowers, cars,
    dtd, caltech101, eurosat, stl10, ...) need no --data; any other name needs it."""


@dataclasses.dataclass(frozen=True)
class LabelledDataSettings(Part):
    """Images with classes, and how they are cropped."""

    data: Annotated[str, paths.DATA, COMMON] = ""
    """Evaluation data: tfds:NAME; a table (.jsonl, .csv, .tsv, .parquet) with the columns image and
    class_name or label; a folder with one folder of images per class; or a quoted pattern of
    shards. Empty: the data set of --task, read from TFDS."""
    split: str = ""
    """Split of --data: a TFDS split, a value of the table's column split, or a subfolder. Empty:
    the data set's own test split, otherwise test.
    """
    train_data: Annotated[str, paths.DATA] = ""
    """Training data, in any form that --data takes. Empty: --data, with --train-split."""
    train_split: str = ""
    """Split of the training data, as in --split. Empty: the data set's own training split,
    otherwise train.
    """
    select: tuple[str, ...] = ()
    """Use only the table rows with these values, such as --select kids=False."""
    images: Annotated[str, paths.FILES] = ""
    """Folder to which the table's image paths are relative. Empty: the folder of the table."""
    class_names: Annotated[str, paths.FILES] = ""
    """A text file with one class name per line, in label order. Empty: CLIP's names for a known
    data set, otherwise the names in the data."""
    min_crop_area: Annotated[float, Above(0.0), AtMost(1.0)] = 0.08
    """Smallest fraction of an image's area that a random training crop covers. Raise it for small
    sets."""
    eval_crop: Annotated[float, Above(0.0), AtMost(1.0)] = 0.875
    """Fraction of each side that the centre crop covers in evaluation."""
    shuffle_buffer: Annotated[int, AtLeast(1)] = 4_096
    """Number of encoded images in the shuffle buffer. Tables and folders are first shuffled
    completely.
    """
    max_skipped_share: Annotated[float, AtLeast(0.0), AtMost(1.0), FREE_ON_RESUME] = 0.01
    """A phase saves a checkpoint and stops when it has skipped more than this fraction of an
    epoch's training images, because they are undecodable, corrupt or missing.
    """

    @property
    def trained_on(self) -> str:
        """The setting that names the training images."""
        return "train_data" if self.train_data else "data"


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Part):
    """Settings that both phases share."""

    schedule: Literal["drops", "cosine"] = "drops"
    """Learning-rate schedule of each phase. drops: multiplies the rate by 0.2 after 30, 60 and 90 %
    of the steps. cosine: lets it fall to 0 along half a cosine."""
    batch_size: Annotated[int, COMMON, AtLeast(1)] = 1_024
    """Images per step, over all replicas."""
    momentum: Annotated[float, AtLeast(0.0), Below(1.0)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, AtLeast(0.0)] = 0.0
    """L2 weight decay of kernels; biases and norms are exempt."""
    rematerialize: Annotated[bool, FREE_ON_RESUME] = False
    """Recomputes activations in the backward pass: less memory, more time."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Data type of the tower's computations. The head and all weights stay float32."""


@dataclasses.dataclass(frozen=True)
class RunSettings(SharedSettings):
    """Devices, evaluation batches, checkpoints and logs."""

    eval_batch_size: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 64
    """Images per batch in evaluation."""
    seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0
    """Random seed of the data order and the crops."""
    strategy: Annotated[Literal["auto", "cpu", "mirrored", "tpu"], FREE_ON_RESUME] = "auto"
    """Devices to train on. auto: all GPUs, or the CPU if there are none."""
    tpu: Annotated[str, FREE_ON_RESUME] = "local"
    """Name or address of the TPU for --strategy=tpu; local is the TPU of this machine."""
    workdir: Annotated[str, paths.FILES, COMMON, FREE_ON_RESUME] = ""
    """Directory of the run; may be gs://... To resume a run, repeat its command with the same
    directory. Empty: a new directory in runs/.
    """
    checkpoint_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 1_000
    """Steps between checkpoints. Each phase keeps its newest three."""
    log_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 50
    """Steps between lines of the log."""


@dataclasses.dataclass(frozen=True)
class ClassificationSettings(Settings):
    """Fine-tunes the image tower of a preset or a finished run on labelled images."""

    start: OmitArgPrefixes[StartSettings] = StartSettings()
    data: OmitArgPrefixes[LabelledDataSettings] = LabelledDataSettings()
    head: Phase = Phase(0.1, epochs=100)
    """First phase: trains only the head, on features of the frozen tower."""
    full: Phase = Phase(0.01, epochs=100)
    """Second phase: trains all weights."""
    training: OmitArgPrefixes[TrainingSettings] = TrainingSettings()
    run: OmitArgPrefixes[RunSettings] = RunSettings()

    def check(self) -> None:
        """Checks everything that does not need data, a model or devices.

        Raises:
            InputError: if a setting is wrong; names the setting and the remedy.
        """
        super().check()
        self.run.check_shared()
        if {"/", "\\"} & set(self.start.task):
            raise InputError(
                f"{self.start.task!r} is not a name",
                remedy="give the path as <data>, and any name here",
                setting="task",
            )
        for name, phase in (("head", self.head), ("full", self.full)):
            if (phase.epochs > 0) == (phase.steps > 0):
                steps, epochs = counted(phase.steps, "step"), counted(phase.epochs, "epoch")
                raise InputError(
                    f"{steps} and {epochs} are given",
                    remedy=f"set <{name}.steps> or <{name}.epochs> above 0 and the other to 0",
                    setting=f"{name}.steps",
                )
