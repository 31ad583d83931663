"""The settings of an inspection of shards, in two parts; without TensorFlow."""

import dataclasses
from typing import Annotated

from align_keras import paths
from align_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How many records are read, and how many are shown."""

    max_records: int = 100_000
    """Records to read and decode in all, the first of each shard; they take about 100 bytes of
    memory each."""
    samples: int = 24
    """Pairs on the picture."""
    max_unusable: float = 0.01
    """Share of corrupt or undecodable records above which the shards count as spoilt."""
    seed: int = 0
    """Decides the pairs on the picture."""

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
    """The input of the planned training, for the throughput and the counts of word pieces."""

    vocabulary: Annotated[str, paths.FILES] = ""
    """BERT vocab.txt to count captions' word pieces with. Empty: not counted."""
    image_size: int = 289
    """Of training, pixels: for the throughput."""
    resize_size: int = 346
    """Of training, pixels: for the throughput."""
    sequence_length: int = 64
    """Of training, word pieces: for the throughput and the count of trimmed captions."""
    antialias: bool = False
    """As in training: for the throughput."""
    batch_size: int = 256
    """Pairs a batch, for the throughput."""
    seconds: float = 5.0
    """How long to run the training pipeline for its throughput; 0 leaves it out."""

    def check(self) -> None:
        """Raises InputError, which names the field, if a value is out of range."""
        if self.batch_size < 1:
            raise InputError(f"must be at least 1, not {self.batch_size}", setting="batch_size")
