"""Checks shards before a long run: what training would skip or reject, sizes, repeats, speed.

    python recipes/inspect_data.py --data='SHARDS/train-*.tfrecord'

Prints a summary, and writes it as JSON together with a picture of random pairs. Exits with 1 if the
shards are unfit for training.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import align_keras  # before others: a signal ends their imports in one line

# isort: split
import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import OmitArgPrefixes

from align_keras import errors, paths
from align_keras.data.inspection_settings import Sampling, TrainingInput
from align_keras.runs import command, next_steps


@dataclasses.dataclass(frozen=True)
class InspectSettings:
    """Checks TFRecord shards before a long run."""

    data: Annotated[str, paths.DATA]
    """Quoted pattern of the shards, or several patterns joined by commas."""
    output: Annotated[str, paths.FILES] = ""
    """Folder for report.json and samples.png. Empty: a folder in inspection/, named after the
    pattern.
    """
    training: OmitArgPrefixes[TrainingInput] = dataclasses.field(default_factory=TrainingInput)
    sampling: OmitArgPrefixes[Sampling] = dataclasses.field(default_factory=Sampling)


def main(settings: InspectSettings) -> None:
    """Inspects the shards, writes and prints the report; exits with 1 if the shards are unfit."""
    from align_keras.data import records
    from align_keras.preprocessing.tokenizer import read_vocabulary

    own = paths.file_name_of(paths.absolute(settings.data))
    output = settings.output or f"inspection/{own}"
    # This runs before TensorFlow loads, so that missing files are reported at once.
    with errors.concerning("data"):
        shards = records.find_shards(settings.data)
    if settings.training.vocabulary:
        with errors.concerning("vocabulary"):
            read_vocabulary(settings.training.vocabulary)
    align_keras.load("align_keras.data.inspecting")
    from align_keras.data import inspecting, inspection_summary

    with errors.concerning("data"):
        report = inspecting.inspect(shards, output, settings.sampling, settings.training)
    print(inspection_summary.format_summary(report))
    if "training_input" in report:
        sizes = ("image_size", "resize_size", "sequence_length", "batch_size")
        given = " ".join(
            f"{command.flag_of(own)}={getattr(settings.training, own)}" for own in sizes
        )
        print(f"measured with {given}; give the sizes of your own run")
    for kind in ("warnings", "errors"):
        for line in report[kind]:
            print(f"{kind[:-1]}: {line}")
    print(f"written: {output}/ (report.json, samples.png)")
    if report["errors"]:
        sys.exit(1)
    next_steps.show(
        next_steps.recipe("pretrain.py", train_data=settings.data, workdir="runs/photos")
    )


def parse(arguments: Sequence[str] | None = None) -> InspectSettings:
    """Reads the flags and checks their values, before TensorFlow loads."""
    settings = command.parse(InspectSettings, arguments, description=__doc__)
    settings.training.check()
    settings.sampling.check()
    return settings


if __name__ == "__main__":
    command.run("inspect_data.py", parse, main)
