r"""Fine-tunes a trained model for retrieval by the paper's recipe.

    python recipes/finetune_retrieval.py --model=RUN --train-data='FLICKR30K/train-*.tfrecord' \
        --eval-data='FLICKR30K/test-*.tfrecord' --workdir=DIR
    python recipes/finetune_retrieval.py --experiment=finetune_coco \
        --model=hf://kakaobrain/align-base ...

Pretraining goes on with the same loss: batches of 2,048, a learning rate of 1e-5 that falls
linearly from the first step, 3,000 steps for Flickr30K and 6,000 for COCO. An image with five
captions is five records with one image_id, as prepare_data.py packs it: they are not each other's
negatives. The held-out data are evaluated before the first step too.
"""

import os
import sys

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import experiments

import align_keras
from align_keras.errors import InputError
from align_keras.runs import command
from align_keras.runs.command_line import command_line


def parse():
    """Reads the flags of pretrain.py; --model must be among them."""
    settings = experiments.read_pretraining(sys.argv[1:], "finetune_flickr30k", __doc__)
    if not settings.model.model:
        raise InputError(
            "give the model to start from", None, "a preset or a run's directory", "model"
        )
    return settings


def main(settings):
    """Trains, evaluates and reports."""
    from align_keras.runs import inputs

    # Before TensorFlow loads: missing files are reported at once.
    inputs.check_pretraining(settings)
    align_keras.load()
    from align_keras.runs import pretraining

    pretraining.pretrain(settings, command_line())


if __name__ == "__main__":
    command.run("finetune_retrieval.py", parse, main)
