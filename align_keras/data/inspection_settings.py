"""The settings of an inspection of shards, in two parts; does not import TensorFlow."""

import dataclasses
from typing import Annotated

from align_keras import paths
from align_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How many records to read and to show."""

    max_records: int = 100_000
    """Maximum number of records to read and decode, taken from the start of each shard. Each record
    takes about 100 bytes of memory.
    """
    samples: int = 24
    """Number of pairs in the picture."""
    max_unusable: float = 0.01
    """Largest acceptable fraction of corrupt or undecodable records. Above it, the shards are unfit
    for training."""
    seed: int = 0
    """Random seed that chooses the pairs in the picture."""

    def check(self) -> None:
        """Raises InputError, which names the field, if a value is out of range."""
        for name in ("max_records", "samples"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, not {getattr(self, name)}", setting=name)
        if not 0 <= self.max_unusable <= 1:
            raise InputError(
                f"must be from 0 to 1, not {self.max_unusable}", setting="max_unusable"
            )


@dataclasses.dataclass(frozen=True)
class TrainingInput:
    """The input of the planned training, for measuring the throughput and counting word pieces."""

    vocabulary: Annotated[str, paths.FILES] = ""
    """Path of a BERT vocab.txt, to count the word pieces of captions. If empty, they are not
    counted.
    """
    image_size: int = 289
    """Side of the crop in the planned training, in pixels. Affects only the throughput."""
    resize_size: int = 346
    """Side of the resized image in the planned training, in pixels. Affects only the throughput."""
    sequence_length: int = 64
    """Word pieces per caption in the planned training. Affects the throughput and the count of
    trimmed captions."""
    antialias: bool = False
    """Whether the planned training resizes with antialiasing. Affects only the throughput."""
    batch_size: int = 256
    """Pairs per batch in the planned training. Affects only the throughput."""
    seconds: float = 5.0
    """Seconds to run the training pipeline to measure its throughput; 0 skips this."""

    def check(self) -> None:
        """Raises InputError, which names the field, if a value is out of range."""
        if self.batch_size < 1:
            raise InputError(f"must be at least 1, not {self.batch_size}", setting="batch_size")
