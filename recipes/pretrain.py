r"""Pretrains ALIGN end to end: shards of image-text pairs in, an evaluated model out.

    python recipes/pretrain.py
    python recipes/pretrain.py --train-data='DIR/train-*.tfrecord' \
        --eval-data='DIR/val-*.tfrecord' --workdir=DIR
    python recipes/pretrain.py --experiment=cc3m_b3_mini --strategy=tpu ...
    python recipes/pretrain.py --model=RUN --train-data=... --workdir=ANOTHER

Without --train-data the default experiment, quickstart, renders its own scenes.
"""

import os
import sys

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import experiments

import align_keras
from align_keras.runs import command
from align_keras.runs.command_line import command_line


def parse():
    """Reads the flags."""
    return experiments.read_pretraining(sys.argv[1:], "quickstart", __doc__)


def main(settings):
    """Trains, evaluates and reports."""
    from align_keras.runs import inputs

    # Before TensorFlow loads: missing files are reported at once.
    inputs.check_pretraining(settings)
    align_keras.load()
    from align_keras.runs import pretraining

    pretraining.pretrain(settings, command_line())


if __name__ == "__main__":
    command.run("pretrain.py", parse, main)
