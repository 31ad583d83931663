"""Looks into shards before a long run: what a run would skip or refuse, sizes, repeats, speed.

    python recipes/inspect_data.py --data='SHARDS/train-*.tfrecord'

Prints a summary and writes it as JSON beside a picture of random pairs. Exits with 1 if the shards
are unfit for training.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import dataclasses
import sys
from collections.abc import Sequence

from align_keras import errors
from align_keras.runs import command


@dataclasses.dataclass(frozen=True)
class InspectSettings:
    """Looks into TFRecord shards before a long run."""

    data: str
    """Pattern of the shards, or several joined by commas."""
    output: str = "inspection"
    """Folder for report.json and samples.png."""
    max_records: int = 100_000
    """Records to read and decode in all, the first of each shard; they take about 100 bytes of
    memory each."""
    vocabulary: str = ""
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
    samples: int = 24
    """Pairs on the picture."""
    max_unusable: float = 0.01
    """Share of corrupt or undecodable records above which the shards count as spoilt."""
    seed: int = 0
    """Decides the pairs on the picture."""


def main(settings: InspectSettings) -> None:
    """Reads, judges, times, writes and prints; exits with 1 if the shards are unfit."""
    from align_keras.data import inspecting, inspection_summary, records

    sampling = inspecting.Sampling(
        settings.max_records, settings.samples, settings.max_unusable, settings.seed
    )
    training = inspecting.TrainingInput(
        settings.vocabulary,
        settings.image_size,
        settings.resize_size,
        settings.sequence_length,
        settings.antialias,
        settings.batch_size,
        settings.seconds,
    )
    with errors.concerning("data"):
        shards = records.find_shards(settings.data)
        report = inspecting.inspect(shards, settings.output, sampling, training)
    print(inspection_summary.format_summary(report))
    for kind in ("warnings", "errors"):
        for line in report[kind]:
            print(f"{kind[:-1]}: {line}")
    print(f"written: {settings.output}/ (report.json, samples.png)")
    if report["errors"]:
        sys.exit(1)


def parse(arguments: Sequence[str] | None = None) -> InspectSettings:
    """The settings of a command line."""
    return command.parse(InspectSettings, arguments, description=__doc__)


if __name__ == "__main__":
    command.run("inspect_data.py", parse, main)
