r"""Exports a trained or published model: for TensorFlow Serving, ONNX Runtime or LiteRT.

    python recipes/export.py --model=runs/photos --output=EXPORTED/photos/1
    python recipes/export.py --model=runs/photos --output=EXPORTED/photos/2 --class-names=imagenet
    python recipes/export.py --model=runs/photos --output=towers --format=litert --quantize=int8

A README.md in the output, in assets/ of a SavedModel, tells what it takes and gives.
recipes/serving_client.py asks a server.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"

import dataclasses
from typing import Annotated, Literal

from align_keras import paths
from align_keras.errors import concerning
from align_keras.runs import command, next_steps


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Exports a preset or a finished run."""

    model: Annotated[str, paths.PRESET]
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    output: Annotated[str, paths.FILES]
    """A new folder. TensorFlow Serving wants a number, the version, as in EXPORTED/photos/1."""
    format: Literal["saved_model", "onnx", "litert"] = "saved_model"
    """saved_model: from strings and image files on, for TensorFlow Serving. onnx, litert: the two
    towers apart, from pixels and word pieces on."""

    # === saved_model ===
    class_names: Annotated[str, paths.FILES] = ""
    """Adds the signature classify: a text file with a class name a line, or a known data set
    (imagenet, pets, flowers, caltech101, eurosat). Empty: none."""
    prompts: tuple[str, ...] = ()
    """Prompts of the classes, separated by spaces; {} stands for the class name. Empty: CLIP's for
    the data set, or 'a photo of a {}.'"""
    fold_batch_norm: bool = False
    """Put batch norms into the kernels before them. The converters of onnx and litert always do."""
    warm_up: bool = True
    """Write requests that TensorFlow Serving warms up with."""

    # === litert ===
    quantize: Literal["none", "float16", "int8"] = "none"
    """How weights are kept."""


def main(settings):
    """Loads, exports and says how to serve."""
    from align_keras.export.options import ExportOptions
    from align_keras.export.outputs import CARD, check_output
    from align_keras.export.serving_command import serving_command
    from align_keras.runs.presets import load_model

    # What is wrong with the flags is reported before TensorFlow loads.
    names = [field.name for field in dataclasses.fields(ExportOptions)]
    arguments = ExportOptions(*(getattr(settings, name) for name in names)).arguments()
    with concerning("output"):
        check_output(settings.output, arguments["format"])
    output = paths.path_of(settings.output)
    with concerning("model"):
        model = load_model(settings.model)
    model.export(output, **arguments)
    is_saved_model = settings.format == "saved_model"
    print((output / (CARD if is_saved_model else "README.md")).read_text(encoding="utf-8"))
    print(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
    if not is_saved_model:
        return
    asked = []
    if output.name.isdecimal():
        name = {"model": output.resolve().parent.name}
        asked.append(next_steps.recipe("serving_client.py", "--texts", "a red ring", **name))
        if settings.class_names:
            name["signature"] = "classify"
            asked.append(next_steps.recipe("serving_client.py", "--images", "PHOTO.jpg", **name))
    next_steps.show(serving_command(output), *asked)


def parse():
    """Reads the flags."""
    return command.parse(ExportSettings, None, description=__doc__)


if __name__ == "__main__":
    command.run("export.py", parse, main)
