r"""Fine-tunes the image tower of a trained model to classify, by the paper's recipes.

    python recipes/finetune_classification.py --experiment=fine_grained \
        --model=hf://kakaobrain/align-base --task=pets
    python recipes/finetune_classification.py --experiment=small_set \
        --model=runs/photos --task=birds --data=BIRDS/labels.csv

The first phase trains a linear head on the frozen tower, and the second phase trains all weights.
After each phase, a table shows the metrics with chance levels and, if there are any, the paper's
figures. JSON and pictures are written as by evaluate.py. The result is classifier.keras.
"""

import os
import sys

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import experiments

import align_keras
from align_keras.data.examples.table_columns import check_data
from align_keras.errors import concerning
from align_keras.runs import command, next_steps
from align_keras.runs.command_line import command_line


def parse():
    """Reads the flags, and checks the columns of tables before TensorFlow loads."""
    settings = experiments.read_classification(sys.argv[1:], __doc__)
    for name in ("data", "train_data"):
        with concerning(name):
            check_data(getattr(settings.data, name), settings.data.select, "class")
    return settings


def main(settings):
    """Trains both phases, evaluates after each phase, and saves."""
    from align_keras.runs import inputs

    # This runs before TensorFlow loads, so that missing files are reported at once.
    inputs.check_classification(settings)
    align_keras.load("align_keras.runs.classification")
    from align_keras.runs import classification

    classification.finetune(settings, command_line(), tell_next)


def tell_next(workdir):
    """Prints the command that shows the curves."""
    next_steps.show(next_steps.tensorboard(workdir))


if __name__ == "__main__":
    command.run("finetune_classification.py", parse, main)
