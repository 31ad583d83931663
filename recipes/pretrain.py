r"""Pretrains ALIGN on shards of image-text pairs, and evaluates the model.

    python recipes/pretrain.py
    python recipes/pretrain.py --train-data='DIR/train-*.tfrecord' \
        --eval-data='DIR/val-*.tfrecord' --workdir=DIR
    python recipes/pretrain.py --model=runs/photos --workdir=runs/longer \
        --train-data='DIR/train-*.tfrecord'

Without --train-data, the default experiment, quickstart, renders its own scenes.
"""

import os
import sys

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import experiments

import align_keras
from align_keras.runs import command, next_steps
from align_keras.runs.command_line import command_line


def parse():
    """Reads the flags."""
    return experiments.read_pretraining(sys.argv[1:], "quickstart", __doc__)


def main(settings):
    """Trains, evaluates and reports."""
    from align_keras.runs import inputs

    # This runs before TensorFlow loads, so that missing files are reported at once.
    inputs.check_pretraining(settings)
    align_keras.load("align_keras.runs.pretraining")
    from align_keras.runs import pretraining

    pretraining.pretrain(settings, command_line(), tell_next)


def tell_next(workdir, settings):
    """Prints the commands for the next steps."""
    held_out = next_steps.held_out_of(workdir, settings.data.eval_data, settings.data.train_data)
    next_steps.show(*next_steps.of_training(workdir, held_out))


if __name__ == "__main__":
    command.run("pretrain.py", parse, main)
