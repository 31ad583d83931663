"""The settings of a pretraining run. Every field of a part is a flag: ``--batch-size=64``."""

import dataclasses
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes

from align_keras import paths
from align_keras.errors import InputError
from align_keras.models.presets import PRESETS
from align_keras.runs import trackers
from align_keras.runs.frozen_towers import check_freeze
from align_keras.runs.setting_values import (
    check_divides,
    check_license,
    check_prompts,
    read_steps,
)
from align_keras.runs.settings import (
    FREE_ON_RESUME,
    Above,
    AtLeast,
    AtMost,
    Below,
    Part,
    Settings,
)

#: The paper's sizes (sec. 5), where neither a flag nor the model gives one.
PAPER_SIZES = {"image_size": 289, "resize_size": 346, "sequence_length": 64}

#: Settings that a trained model brings; they cannot be given beside it.
BROUGHT_BY_MODEL = (
    "preset",
    "image_encoder",
    "text_encoder",
    "text_gelu",
    "initial_temperature",
    "vocabulary",
    "vocabulary_size",
    "vocabulary_captions",
)


@dataclasses.dataclass(frozen=True)
class DataSettings(Part):
    """What the run trains and is evaluated on, and how pairs become inputs."""

    train_data: Annotated[str, paths.DATA] = ""
    """Pattern of the training shards, quoted, such as 'DIR/train-*.tfrecord', several joined by
    commas, or tfds:NAME. With weights, 'A/*.tfrecord=2,B/*.tfrecord=1', each is shuffled by itself
    and mixed by weight, by default its number of pairs. Empty (quickstart only): scenes
    are rendered into the run's directory."""
    eval_data: Annotated[str, paths.DATA, FREE_ON_RESUME] = ""
    """Pattern of the held-out shards. Empty: no evaluation (with --train-data empty too:
    rendered scenes)."""
    zero_shot_data: Annotated[str, paths.DATA, FREE_ON_RESUME] = ""
    """Pattern of shards whose records carry a class_name, for zero-shot classification.
    Empty: the held-out shards, if their records do."""
    prompts: Annotated[tuple[str, ...], FREE_ON_RESUME] = ("a photo of a {}", "{}")
    """Zero-shot prompts, separated by spaces; {} stands for the class name."""
    vocabulary: Annotated[str, paths.FILES] = ""
    """Path of a BERT vocab.txt. Empty: trained on the training captions."""
    vocabulary_size: Annotated[int, AtLeast(100)] = 100_000
    """Word pieces of a trained vocabulary, at most."""
    vocabulary_captions: Annotated[int, AtLeast(1)] = 1_000_000
    """Captions to train the vocabulary on, at most."""
    resize_size: Annotated[int | None, AtLeast("image_size")] = None
    """Pixels: images are stretched to this square. None: 346, or the size of --model, scaled as
    --image-size is."""
    image_size: Annotated[int | None, AtLeast(8)] = None
    """Pixels: and cropped to this square, at random in training, at the centre else. None: 289,
    or the size of --model."""
    antialias: bool = False
    """Averages pixels where images get smaller, as Pillow does; slower than sampling. Where
    --model does, this does not turn it off."""
    sequence_length: Annotated[int | None, AtLeast(3)] = None
    """Word pieces a caption, [CLS] and [SEP] included. None: 64, or the length of --model."""
    shuffle_buffer: Annotated[int, AtLeast(1)] = 10_000
    """Encoded records among which the order is random, beside the blocks that they come in."""
    max_skipped_share: Annotated[float, AtLeast(0.0), AtMost(1.0), FREE_ON_RESUME] = 0.01
    """The run stops, with a checkpoint, once more than this share of an epoch's pairs was skipped:
    corrupt records or images, empty captions, lost files. Looked at for each line of the log."""


@dataclasses.dataclass(frozen=True)
class ModelSettings(Part):
    """What is trained: a model of these sizes, or one that was trained before."""

    model: Annotated[str, paths.PRESET] = ""
    """Starts from a trained model: a preset (a folder, hf://... or kaggle://...), or the
    directory of a run that has one. It brings its towers, temperature, vocabulary and, unless
    given beside it, the sizes of images and captions; those of --experiment are left out.
    Empty: the model is made of the settings below."""
    preset: str = "align_b7_base"
    """Size of the towers: align_l2_large, align_b7_base, align_b5_base, align_b3_mini or
    align_nano_tiny."""
    image_encoder: Annotated[str, paths.PRESET] = ""
    """Starts the image tower from a keras-hub EfficientNet: a preset's name such as
    efficientnet_b0_ra_imagenet, a folder, hf://... or kaggle://... Empty: the size of --preset,
    random weights."""
    text_encoder: Annotated[str, paths.PRESET] = ""
    """Starts the text tower from a BERT of keras-hub or Hugging Face, whose vocabulary is then
    used: a preset's name such as bert_base_en_uncased, a folder, hf://... or kaggle://... Its
    output at [CLS] is taken, however it was pooled before. Empty: the size of --preset, random
    weights."""
    text_gelu: Literal["exact", "tanh"] | None = None
    """GELU of the text tower: exact, or its tanh approximation. None: what the config.json of
    --text-encoder says. keras-hub's presets do not say; they get tanh, as in keras-hub, where
    those of sentence-transformers and BGE were trained with exact."""
    synchronized_batch_norm: bool = True
    """Batch norm uses statistics of the global batch, not of each replica."""
    freeze: str = ""
    """Towers that are not trained, joined by commas: image_encoder, text_encoder, or
    image_encoder:2000 for the first 2,000 steps. They compute as in inference, batch norm and
    dropout included, and cost no backward pass. Empty: none."""
    frozen_statistics: bool = False
    """Batch norm normalises by its moving statistics in training too and leaves them as they are;
    its scales and offsets are trained. For a pretrained image tower."""
    initial_temperature: Annotated[float, AtLeast("min_temperature")] = 1.0
    """Of the softmax; a run of a few thousand steps needs a start near 0.1."""
    min_temperature: Annotated[float, Above(0.0)] = 0.005
    """Floor of the temperature."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """What the towers compute in; embeddings, loss and weights are float32. For float16 the loss
    is scaled."""


@dataclasses.dataclass(frozen=True)
class OptimizerSettings(Part):
    """Loss, optimizer, and what a training step keeps in memory."""

    label_smoothing: Annotated[float, AtLeast(0.0), AtMost(1.0)] = 0.1
    """Fraction of each softmax target that is spread over all pairs."""
    mask_false_negatives: bool = True
    """Pairs that share an image id or a caption are not each other's negatives; off gives the
    paper's loss."""
    optimizer: Literal["lamb", "adamw", "sgd", "adafactor"] = "lamb"
    """LAMB as published, AdamW, SGD with momentum 0.9, or Adafactor."""
    learning_rate: Annotated[float, AtLeast(0.0), FREE_ON_RESUME] = 1e-3
    """At its peak, after the warm-up."""
    warmup_steps: Annotated[int, AtLeast(0), Below("steps")] = 10_000
    """Steps over which the learning rate rises from 0; afterwards it follows --schedule."""
    image_rate_factor: Annotated[float, Above(0.0)] = 1.0
    """Factor of the image tower's learning rate, such as 0.1 for a pretrained one."""
    text_rate_factor: Annotated[float, Above(0.0)] = 1.0
    """Factor of the text tower's learning rate."""
    layer_decay: Annotated[float, Above(0.0), AtMost(1.0)] = 1.0
    """Factor of the learning rate from each block of BERT, or stage of EfficientNet, to the one
    before, such as 0.8; the last one of each tower has it once."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """The learning rate after the warm-up: falls to 0 linearly, as the paper's, or along half a
    cosine, or stays."""
    weight_decay: Annotated[float, AtLeast(0.0)] = 1e-5
    """Weight decay of kernels and embeddings; biases and norms are exempt."""
    exclude_from_decay: tuple[str, ...] = ()
    """Regular expressions; weights with a match in their path get no decay either, as
    embedding for BERT's tables."""
    exclude_from_adaptation: tuple[str, ...] = ()
    """Likewise for LAMB's layer adaptation; these move at the plain learning rate."""
    ema_momentum: Annotated[float, AtLeast(0.0), AtMost(0.999999)] = 0.0
    """Decay of the weight average, such as 0.999; above 0, the average is evaluated and saved as
    preset/."""
    global_clipnorm: Annotated[float, AtLeast(0.0), FREE_ON_RESUME] = 0.0
    """Bound on the norm of all gradients together; 0 for none."""
    loss_tile_rows: Annotated[int | None, AtLeast(0), FREE_ON_RESUME] = None
    """Rows of the matrix of similarities that the loss holds at once, on each replica; 0 for the
    whole matrix. None: the whole up to 4 million similarities (2,048 pairs on one replica), above
    that 8 MiB, but 64 rows at least."""
    micro_batch_size: Annotated[int, AtLeast(0)] = 0
    """Pairs of a replica whose activations are in memory at once; the gradient stays that of the
    whole batch, except that batch norm uses micro-batch statistics. 0 for all pairs."""
    rematerialize: Annotated[bool, FREE_ON_RESUME] = False
    """Keeps only what enters each block of the towers and computes the rest again in the backward
    pass: less memory, more time."""
    space_to_batch: Annotated[bool | None, FREE_ON_RESUME] = None
    """Cuts images into chunks of columns in EfficientNet's first stages, which fill a TPU's lanes
    if a core has few pairs; the results are the same. None: on TPUs only."""


@dataclasses.dataclass(frozen=True)
class RunSettings(Part):
    """How long it trains, where, and what it leaves."""

    batch_size: Annotated[int, AtLeast(2)] = 16_384
    """Pairs a step over all replicas, every one a negative of the others."""
    steps: Annotated[int, AtLeast(1)] = 1_200_000
    """Optimizer steps."""
    seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0
    """Decides weights, data order, crops and dropout."""
    strategy: Annotated[
        Literal["auto", "cpu", "mirrored", "multi_worker", "tpu"], FREE_ON_RESUME
    ] = "auto"
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
    eval_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 10_000
    """Steps between evaluations."""
    checkpoint_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 5_000
    """Steps between checkpoints; the newest three and the best are kept."""
    log_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 100
    """Steps between lines of the log."""
    steps_per_execution: Annotated[int | None, AtLeast(1), FREE_ON_RESUME] = None
    """Steps that the device does before the program looks again; a divisor of --log-every,
    --eval-every, --checkpoint-every and --steps. None: up to 32 on TPUs and GPUs, 1 on a CPU."""
    profile: Annotated[str, FREE_ON_RESUME] = ""
    """START:STOP, the first and the last step of a trace for TensorBoard, which has whole
    executions; empty for none."""


@dataclasses.dataclass(frozen=True)
class PretrainSettings(Settings):
    """Trains ALIGN on TFRecord shards of image-text pairs."""

    data: OmitArgPrefixes[DataSettings] = DataSettings()
    model: OmitArgPrefixes[ModelSettings] = ModelSettings()
    optimizer: OmitArgPrefixes[OptimizerSettings] = OptimizerSettings()
    run: OmitArgPrefixes[RunSettings] = RunSettings()

    def check(self) -> None:
        """Checks all that needs no data, no model and no device.

        Raises:
            InputError: names the setting and says what to do.
        """
        super().check()
        check_prompts(self.data.prompts)
        run = self.run
        check_license(run.license)
        trackers.names_of(run.tracker)
        intervals = ("log_every", "eval_every", "checkpoint_every", "steps")
        check_divides(run.steps_per_execution, {name: getattr(run, name) for name in intervals})
        if run.profile and read_steps(run.profile)[1] > run.steps:
            raise InputError(
                f"{run.profile} is beyond the last step, {run.steps:,}",
                remedy="give earlier steps",
                setting="profile",
            )
        if self.model.preset not in PRESETS:
            names = ", ".join(sorted(PRESETS))
            raise InputError(f"no {self.model.preset!r}", None, f"choose one of {names}", "preset")
        check_freeze(self.model.freeze, run.steps)
        self._check_origins()

    def check_resumable(self, before: dict[str, Any], workdir: paths.AnyPath) -> None:
        """As ``Settings.check_resumable``."""
        # The GELU of a run from before it could be chosen.
        gelu = None if before.get("model") else "tanh"
        super().check_resumable({"text_gelu": gelu, **before}, workdir)

    def _check_origins(self) -> None:
        """Checks that nothing comes from two places, or from none."""
        if self.model.text_encoder and self.data.vocabulary:
            raise InputError(
                "the text tower brings its own",
                remedy="leave out <vocabulary> or <text_encoder>",
                setting="vocabulary",
            )
        if self.model.model:
            given = self.flat()
            for name in ("image_encoder", "text_encoder", "text_gelu", "vocabulary"):
                if given[name]:
                    raise brought_by_model(name)
        for name, value in (("model", self.model.model), ("eval_data", self.data.eval_data)):
            if value and not self.data.train_data:
                raise InputError(
                    "it needs training data", remedy="give <train_data> too", setting=name
                )


def brought_by_model(name: str) -> InputError:
    """The error about a setting that was given beside a trained model."""
    return InputError(
        "a trained model brings its own", remedy=f"leave out <{name}> or <model>", setting=name
    )
