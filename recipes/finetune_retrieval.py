r"""Fine-tunes a trained model for retrieval by the paper's recipe.

    python recipes/finetune_retrieval.py --model=runs/photos \
        --train-data='FLICKR30K/train-*.tfrecord' \
        --eval-data='FLICKR30K/test-*.tfrecord'
    python recipes/finetune_retrieval.py --experiment=finetune_coco \
        --model=hf://kakaobrain/align-base --train-data='COCO/train-*.tfrecord'

Training continues with the loss of pretraining: batches of 2,048, a learning rate that starts at
1e-5 and falls linearly to 0, 3,000 steps for Flickr30K and 6,000 for COCO. prepare_data.py packs an
image with five captions as five records with the same image_id; they are not each other's
negatives. The held-out data are also evaluated before the first step.
"""

import os
import sys

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import experiments

import align_keras
from align_keras.errors import InputError
from align_keras.runs import command


def parse():
    """Reads the flags of pretrain.py; --model must be among them."""
    settings = experiments.read_pretraining(sys.argv[1:], "finetune_flickr30k", __doc__)
    if not settings.model.model:
        raise InputError(
            "no model to start from", None, "give a preset or a run's directory", "model"
        )
    return settings


def main(settings):
    """Trains, evaluates and reports."""
    from align_keras.runs import inputs

    # Before TensorFlow loads, so that missing files are reported at once.
    inputs.check_pretraining(settings)
    align_keras.load()
    from align_keras.runs import pretraining

    pretraining.pretrain(settings)


if __name__ == "__main__":
    command.run("finetune_retrieval.py", parse, main)
