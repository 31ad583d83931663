r"""Exports a trained or published model for TensorFlow Serving, ONNX Runtime or LiteRT.

    python recipes/export.py --model=runs/photos --output=EXPORTED/photos/1
    python recipes/export.py --model=runs/photos --output=EXPORTED/photos/2 \
        --class-names=imagenet
    python recipes/export.py --model=runs/photos --output=towers \
        --format=litert --quantize=int8

A README.md in the output (in assets/ of a SavedModel) describes inputs and outputs.
recipes/serving_client.py sends requests to a server.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"

import dataclasses
from typing import Annotated, Literal

from align_keras import paths
from align_keras.errors import concerning
from align_keras.runs import command, next_steps
from align_keras.runs.settings import Heading


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Exports a preset or a finished run."""

    model: Annotated[str, paths.PRESET, Heading("what to export")]
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has saved
    one."""
    output: Annotated[str, paths.FILES]
    """A new folder. TensorFlow Serving needs a version number as its name, such as
    EXPORTED/photos/1."""
    format: Literal["saved_model", "onnx", "litert"] = "saved_model"
    """saved_model: takes strings and image files, for TensorFlow Serving. onnx, litert: two
    separate towers that take pixels and word pieces."""

    class_names: Annotated[str, paths.FILES, Heading("saved_model")] = ""
    """Adds the signature classify for these classes: a text file with one class name per line, or a
    known data set (imagenet, pets, flowers, caltech101, eurosat). Empty: no such signature."""
    prompts: tuple[str, ...] = ()
    """Prompts for the class names, separated by spaces; {} stands for the class name. Empty: CLIP's
    prompts for the data set, or 'a photo of a {}.'"""
    fold_batch_norm: bool = False
    """Merge batch norms into the kernels before them, for faster inference. This is always done for
    onnx and litert."""
    warm_up: bool = True
    """Include warm-up requests, which TensorFlow Serving runs when it loads the model."""

    quantize: Annotated[Literal["none", "float16", "int8"], Heading("litert")] = "none"
    """Data type in which weights are stored; float16 and int8 make the files smaller."""


def main(settings):
    """Loads the model, exports it, and prints how to serve it."""
    from align_keras.export.options import ExportOptions
    from align_keras.export.outputs import CARD, check_output
    from align_keras.export.serving_command import serving_command
    from align_keras.runs.presets import load_model

    # Checked first, so that errors in the flags are reported before TensorFlow loads.
    names = [field.name for field in dataclasses.fields(ExportOptions)]
    arguments = ExportOptions(*(getattr(settings, name) for name in names)).arguments()
    with concerning("output"):
        check_output(settings.output, arguments["format"])
    output = paths.path_of(settings.output)
    with concerning("model"):
        model = load_model(settings.model)
    model.export(output, **arguments)
    is_saved_model = settings.format == "saved_model"
    print(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
    card = output / (CARD if is_saved_model else "README.md")
    print(f"inputs, outputs and how to call them in Python: {card} and docs/serving.md")
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
