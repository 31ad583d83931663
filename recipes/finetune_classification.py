r"""Fine-tunes the image tower of a trained model to classify, by the paper's recipes.

    python recipes/finetune_classification.py --model=hf://kakaobrain/align-base --task=imagenet
    python recipes/finetune_classification.py --experiment=fine_grained --model=RUN --task=pets
    python recipes/finetune_classification.py --experiment=small_set --model=RUN --task=photos \
        --data=PHOTOS/labels.csv

First a linear head on the frozen tower, then everything. After either it prints a table with chance
and, where the paper has one, its figure, and writes JSON and pictures as evaluate.py does; at the
end, classifier.keras.
"""

import os
import sys

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import experiments

import align_keras
from align_keras.data.examples.table_columns import check_data
from align_keras.errors import concerning
from align_keras.runs import command
from align_keras.runs.command_line import command_line


def parse():
    """Reads the flags, and checks the columns of tables before TensorFlow loads."""
    settings = experiments.read_classification(sys.argv[1:], __doc__)
    for name in ("data", "train_data"):
        with concerning(name):
            check_data(getattr(settings.data, name), settings.data.select, "class")
    return settings


def main(settings):
    """Trains both phases, evaluates after each and saves."""
    from align_keras.runs import inputs

    # Before TensorFlow loads: missing files are reported at once.
    inputs.check_classification(settings)
    align_keras.load()
    from align_keras.runs import classification

    classification.finetune(settings, command_line())


if __name__ == "__main__":
    command.run("finetune_classification.py", parse, main)
