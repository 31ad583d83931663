r"""Exports a trained or published model: for TensorFlow Serving, ONNX Runtime or LiteRT.

    python recipes/export.py --model=runs/photos --output=EXPORTED/photos/1
    python recipes/export.py --model=runs/photos --output=EXPORTED/photos/2 --class-names=imagenet
    python recipes/export.py --model=runs/photos --output=towers --format=litert --quantize=int8

A README.md in the output, in assets/ of a SavedModel, tells what it takes and gives.
recipes/serving_client.py asks a server.
"""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Literal

from quiet_tensorflow import load_quietly

load_quietly()

import tyro
from classification_tasks import read_names
from run_presets import load_model

from align_keras.evaluation import data_sets, zero_shot
from align_keras.export.writing import CARD, check_output


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Exports a preset or a finished run."""

    model: str
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    output: str
    """A new folder. TensorFlow Serving wants a number, the version, as in EXPORTED/photos/1."""
    format: Literal["saved_model", "onnx", "litert"] = "saved_model"
    """saved_model: from strings and image files on, for TensorFlow Serving. onnx, litert: the two
    towers apart, from pixels and word pieces on."""

    # === saved_model ===
    class_names: str = ""
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
    # What is wrong with the flags is told before a model is loaded.
    options = format_options(settings)
    check_output(settings.output)
    output = Path(settings.output)
    model = load_model(settings.model)
    model.export(output, **options)
    card = CARD if settings.format == "saved_model" else "README.md"
    print((output / card).read_text(encoding="utf-8"))
    print(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
    if settings.format == "saved_model":
        print(serving_line(output))


def format_options(settings):
    """The arguments of ``AlignDualEncoder.export``; ValueError on flags that do not go together."""
    if settings.format != "saved_model":
        wrong = ["class_names"] if settings.class_names else []
        wrong += ["fold_batch_norm"] if settings.fold_batch_norm else []
        if wrong:
            flag = wrong[0].replace("_", "-")
            raise ValueError(f"--{flag}: only for --format=saved_model")
        quantize = None if settings.quantize == "none" else settings.quantize
        return {"format": settings.format, "quantize": quantize}
    if settings.quantize != "none":
        raise ValueError("--quantize: only for --format=litert")
    if settings.prompts and not settings.class_names:
        raise ValueError("--prompts: needs --class-names")
    prompts = settings.prompts or data_sets.prompts_of(settings.class_names)
    zero_shot.fill_prompts([], prompts)
    return {
        "format": "tf_saved_model",
        "class_names": read_class_names(settings.class_names),
        "prompts": prompts,
        "fold_batch_norm": settings.fold_batch_norm,
        "warm_up_requests": settings.warm_up,
    }


def read_class_names(class_names):
    """The lines of a file, or the names of a known data set; None without any."""
    if not class_names:
        return None
    if Path(class_names).is_file():
        names = read_names(class_names)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"--class-names: {class_names}: {twice[0]!r} stands twice in it")
        return names
    names = data_sets.class_names_of(class_names)
    if names is None:
        known = [name for name in data_sets.DATA_SETS if data_sets.class_names_of(name)]
        raise ValueError(
            f"--class-names: {class_names} is no file and none of {', '.join(known)}; give a text "
            "file with a name a line"
        )
    return names


def serving_line(output):
    """How to serve a SavedModel."""
    if not output.name.isdecimal():
        return "TensorFlow Serving wants a number as the folder's name, as in EXPORTED/photos/1"
    folder = output.resolve().parent
    return (
        f"docker run --rm -p 8500:8500 -p 8501:8501 -e MODEL_NAME={shlex.quote(folder.name)} \\\n"
        f"    -v {shlex.quote(f'{folder}:/models/{folder.name}')} tensorflow/serving"
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(ExportSettings, description=__doc__))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"export.py: {error}")
    except KeyboardInterrupt:
        sys.exit("export.py: interrupted")
