"""The parts of the settings of a pretraining run. Every field is a flag: ``--batch-size=64``."""

import dataclasses
from typing import Annotated, Literal

from align_keras import paths
from align_keras.runs.settings import (
    COMMON,
    FREE_ON_RESUME,
    Above,
    AtLeast,
    AtMost,
    Below,
    Part,
)
from align_keras.runs.shared_settings import SharedSettings

#: The paper's sizes (sec. 5), used if neither a flag nor the model gives a size.
PAPER_SIZES = {"image_size": 289, "resize_size": 346, "sequence_length": 64}


@dataclasses.dataclass(frozen=True)
class DataSettings(Part):
    """Data for training and evaluation, and how pairs become inputs."""

    train_data: Annotated[str, paths.DATA, COMMON] = ""
    """Training shards: a quoted pattern such as 'DIR/train-*.tfrecord', several patterns joined by
    commas, or tfds:NAME. With weights, as in 'A/*.tfrecord=2,B/*.tfrecord=1', each pattern is
    shuffled separately and pairs are drawn in these proportions. Empty (quickstart only): scenes
    are rendered into the run's directory."""
    captions: Literal["all", "sample"] = "all"
    """Captions per epoch of an image that has several (records with the same image_id). all: each
    caption makes a pair. sample: the image occurs once, with a randomly chosen caption; the run
    first reads all image ids."""
    eval_data: Annotated[str, paths.DATA, COMMON, FREE_ON_RESUME] = ""
    """Pattern of the held-out shards. Empty: no evaluation, except on rendered scenes."""
    zero_shot_data: Annotated[str, paths.DATA, FREE_ON_RESUME] = ""
    """Pattern of shards for zero-shot classification; their records need a class_name. Empty: the
    held-out shards, if their records have one."""
    prompts: Annotated[tuple[str, ...], FREE_ON_RESUME] = ("a photo of a {}", "{}")
    """Zero-shot prompts, separated by spaces; {} stands for the class name."""
    vocabulary: Annotated[str, paths.FILES] = ""
    """Path of a BERT vocab.txt. Empty: a vocabulary is trained on the training captions."""
    vocabulary_size: Annotated[int, AtLeast(100)] = 100_000
    """Maximum number of word pieces in a vocabulary that the run trains."""
    vocabulary_captions: Annotated[int, AtLeast(1)] = 1_000_000
    """Maximum number of captions to train the vocabulary on."""
    resize_size: Annotated[int | None, AtLeast("image_size")] = None
    """Side in pixels of the square to which images are resized before the crop; their aspect ratio
    is not kept. None: 346, or the size of --model, scaled in proportion to --image-size."""
    image_size: Annotated[int | None, AtLeast(8)] = None
    """Side in pixels of the square crop that the model sees: random in training, central in
    evaluation. None: 289, or the size of --model."""
    antialias: bool = False
    """Averages pixels when shrinking images, as Pillow does; slower than plain sampling. Always on
    if --model was trained with it."""
    sequence_length: Annotated[int | None, AtLeast(3)] = None
    """Word pieces per caption, including [CLS] and [SEP]; longer captions are cut. None: 64, or the
    length of --model."""
    cache_features: Annotated[int, AtLeast(0)] = 0
    """Number of views of each image. The features of all views are computed once, before training.
    --freeze must keep the image tower frozen in all steps. View 1 is the centre crop, the others
    are random crops; each epoch uses the next view. If the text tower is frozen in all steps, its
    features are also computed once. 0: every step reads, augments and embeds its images."""
    shuffle_buffer: Annotated[int, AtLeast(1)] = 10_000
    """Number of encoded records in the shuffle buffer. Blocks of records are also read in random
    order."""
    max_skipped_share: Annotated[float, AtLeast(0.0), AtMost(1.0), FREE_ON_RESUME] = 0.01
    """The run saves a checkpoint and stops when it has skipped more than this fraction of an
    epoch's pairs: corrupt records or images, empty captions, lost files. Checked at each line of
    the log."""


@dataclasses.dataclass(frozen=True)
class ModelSettings(Part):
    """The model to train: a new one, or one that was trained before."""

    model: Annotated[str, paths.PRESET, COMMON] = ""
    """Trained model to start from: a preset (a folder, hf://... or kaggle://...), or the directory
    of a run that has saved one. Its towers, temperature and vocabulary are used. Image and caption
    sizes also come from it, not from --experiment, unless their flags are given. Empty: a new model
    with the settings below."""
    preset: str = "align_b7_base"
    """Size of the towers: align_l2_large, align_b7_base, align_b5_base, align_b3_mini or
    align_nano_tiny."""
    image_encoder: Annotated[str, paths.PRESET] = ""
    """Pretrained keras-hub EfficientNet to start the image tower from: a preset name such as
    efficientnet_b0_ra_imagenet, a folder, hf://... or kaggle://... Empty: random weights, in the
    size of --preset."""
    text_encoder: Annotated[str, paths.PRESET] = ""
    """Pretrained BERT (keras-hub or Hugging Face) to start the text tower from: a preset name such
    as bert_base_en_uncased, a folder, hf://... or kaggle://... Its vocabulary is used too.
    --text-pooling decides which of its outputs are used, even if it was trained with another
    pooling. Empty: random weights, in the size of --preset."""
    text_gelu: Literal["exact", "tanh"] | None = None
    """GELU of the text tower: exact, or its tanh approximation. None: the one in the config.json of
    --text-encoder. keras-hub presets do not name theirs and get tanh, as in keras-hub; give exact
    for sentence-transformers and BGE, which were trained with it."""
    text_pooling: Literal["cls", "mean"] = "cls"
    """The text tower's features. cls: the hidden state at [CLS], as in the paper. mean: the mean
    over the word pieces, with which most sentence-transformers models were trained."""
    top_convolution: bool = False
    """Takes the image features after EfficientNet's top convolution, which is better for a frozen
    tower. The paper takes them before it."""
    projection_dim: Annotated[int | None, AtLeast(1)] = None
    """Width of the space that images and captions share. None: the width of --preset."""
    image_feature_dropout: Annotated[float, AtLeast(0.0), Below(1.0)] = 0.0
    """Fraction of the image features that training sets to zero. Frozen towers need it when there
    are only a few thousand pairs; try 0.2 to 0.5."""
    synchronized_batch_norm: bool = True
    """Batch norm uses the statistics of the global batch instead of each replica's own."""
    freeze: str = ""
    """Towers to freeze, joined by commas: image_encoder, text_encoder, or image_encoder:2000 for
    the first 2,000 steps only. A frozen tower runs as in inference (batch norm and dropout
    included) and needs no backward pass. Empty: none."""
    frozen_statistics: bool = False
    """Batch norm uses its moving statistics in training too, and does not update them; its scales
    and offsets are still trained. Useful for a pretrained image tower."""
    initial_temperature: Annotated[float, AtLeast("min_temperature")] = 1.0
    """Initial temperature of the softmax. Runs of a few thousand steps need about 0.1."""
    min_temperature: Annotated[float, Above(0.0)] = 0.005
    """Lower bound of the temperature."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Data type of the towers' computations. Embeddings, loss and weights stay float32;
    mixed_float16 scales the loss."""


@dataclasses.dataclass(frozen=True)
class OptimizerSettings(Part):
    """Loss, optimizer, and memory of a training step."""

    label_smoothing: Annotated[float, AtLeast(0.0), AtMost(1.0)] = 0.1
    """Fraction of each softmax target that is spread evenly over all pairs."""
    mask_false_negatives: bool = True
    """Pairs with the same image id or caption are not each other's negatives. Turn this off for the
    paper's loss."""
    optimizer: Literal["lamb", "adamw", "sgd", "adafactor"] = "lamb"
    """LAMB as published, AdamW, SGD with momentum 0.9, or Adafactor."""
    learning_rate: Annotated[float, COMMON, AtLeast(0.0), FREE_ON_RESUME] = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    warmup_steps: Annotated[int, AtLeast(0), Below("steps")] = 10_000
    """Steps over which the learning rate rises from 0. Afterwards it follows --schedule."""
    image_rate_factor: Annotated[float, Above(0.0)] = 1.0
    """Factor on the image tower's learning rate, such as 0.1 for a pretrained tower."""
    text_rate_factor: Annotated[float, Above(0.0)] = 1.0
    """Factor on the text tower's learning rate."""
    layer_decay: Annotated[float, Above(0.0), AtMost(1.0)] = 1.0
    """Layer-wise learning-rate decay, such as 0.8: the last block of each tower (stage in
    EfficientNet) gets this factor once, the block before it twice, and so on. 1: none."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate after the warm-up. linear: falls linearly to 0, as in the paper. cosine: falls
    to 0 along half a cosine. constant: stays at the peak."""
    weight_decay: Annotated[float, AtLeast(0.0)] = 1e-5
    """Weight decay of kernels and embeddings; biases and norms are exempt."""
    exclude_from_decay: tuple[str, ...] = ()
    """Regular expressions: weights whose path matches one also get no weight decay. Example:
    embedding, for BERT's embedding tables."""
    exclude_from_adaptation: tuple[str, ...] = ()
    """Regular expressions: weights whose path matches one skip LAMB's layer adaptation and use the
    plain learning rate."""
    ema_momentum: Annotated[float, AtLeast(0.0), AtMost(0.999999)] = 0.0
    """Decay of the weight average, such as 0.999; above 0, the average is evaluated and saved as
    preset/."""
    global_clipnorm: Annotated[float, AtLeast(0.0), FREE_ON_RESUME] = 0.0
    """Maximum norm of all gradients together; larger gradients are scaled down. 0: no clipping."""
    loss_tile_rows: Annotated[int | None, AtLeast(0), FREE_ON_RESUME] = None
    """Rows of the similarity matrix that the loss holds in memory at once, on each replica; 0 for
    the full matrix. Lower it if the loss runs out of memory. None: the full matrix up to 4 million
    similarities (2,048 pairs on one replica), otherwise tiles of 8 MiB, but at least 64 rows."""
    micro_batch_size: Annotated[int, AtLeast(0)] = 0
    """Pairs per replica whose activations are in memory at once; 0 for all. Lower it if the towers
    run out of memory. The gradient is still that of the full batch, except that batch norm uses
    micro-batch statistics."""
    rematerialize: Annotated[bool, FREE_ON_RESUME] = False
    """Stores only the input of each block of the towers and recomputes the rest in the backward
    pass: less memory, more time."""
    space_to_batch: Annotated[bool | None, FREE_ON_RESUME] = None
    """Splits images into chunks of columns in EfficientNet's first stages, to fill a TPU's lanes
    when a core has few pairs. Results are the same. None: on TPUs only."""


@dataclasses.dataclass(frozen=True)
class RunSettings(SharedSettings):
    """Length of the run, devices, evaluations, checkpoints and logs."""

    batch_size: Annotated[int, COMMON, AtLeast(2)] = 16_384
    """Pairs per step, over all replicas. All other pairs of the batch are negatives."""
    steps: Annotated[int, COMMON, AtLeast(1)] = 1_200_000
    """Optimizer steps."""
    seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0
    """Random seed of the weights, the data order, the crops and dropout."""
    strategy: Annotated[
        Literal["auto", "cpu", "mirrored", "multi_worker", "tpu"], COMMON, FREE_ON_RESUME
    ] = "auto"
    """Devices to train on. auto: all GPUs, or the CPU if there are none."""
    tpu: Annotated[str, FREE_ON_RESUME] = "local"
    """Name or address of the TPU for --strategy=tpu; local is the TPU of this machine."""
    workdir: Annotated[str, paths.FILES, COMMON, FREE_ON_RESUME] = ""
    """Directory of the run; may be gs://... To resume a run, repeat its command with the same
    directory. Empty: a new directory below runs/."""
    eval_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 10_000
    """Steps between evaluations."""
    checkpoint_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 5_000
    """Steps between checkpoints. The newest three and the best are kept."""
    log_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 100
    """Steps between lines of the log."""
    steps_per_execution: Annotated[int | None, AtLeast(1), FREE_ON_RESUME] = None
    """Steps that the device runs before it returns to Python; must divide --log-every,
    --eval-every, --checkpoint-every and --steps. None: up to 32 on TPUs and GPUs, 1 on a CPU."""
    profile: Annotated[str, FREE_ON_RESUME] = ""
    """START:STOP, the first and last step of a profiler trace for TensorBoard. The trace is
    extended to whole executions (--steps-per-execution). Empty: none."""
