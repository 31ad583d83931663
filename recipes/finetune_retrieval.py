r"""Fine-tunes a trained model for retrieval by the paper's recipe.

    python recipes/finetune_retrieval.py --model=runs/photos \
        --train-data='FLICKR30K/train-*.tfrecord' \
        --eval-data='FLICKR30K/test-*.tfrecord'
    python recipes/finetune_retrieval.py --experiment=finetune_coco \
        --model=hf://kakaobrain/align-base --train-data='COCO/train-*.tfrecord'

Training continues with the loss of pretraining, at a learning rate that falls linearly from 1e-5 to
zero. Batch size and number of steps are chosen by the number of training pairs.
--experiment=finetune_flickr30k and finetune_coco use the paper's values: batches of 2,048, and
3,000 or 6,000 steps. prepare_data.py packs an image with five captions as five records with the
same image_id; these are not negatives of each other. The held-out data are also evaluated before
the first step.
"""

import os
import sys

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import experiments

import align_keras
from align_keras import progress
from align_keras.errors import InputError, concerning, with_names
from align_keras.runs import command, next_steps
from align_keras.runs.command_line import command_line


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
    from align_keras.runs import inputs, tuning_length

    # This runs before TensorFlow loads, so that missing files are reported at once.
    inputs.check_pretraining(settings)
    given = experiments.given(sys.argv[1:])
    if "experiment" not in given:  # otherwise the experiment's batch size and steps are used
        with concerning("train_data"):
            settings, chosen = tuning_length.with_length(settings, given)
        if chosen:
            progress.tell(with_names(chosen, command.flag_of))
    align_keras.load("align_keras.runs.pretraining")
    from align_keras.runs import pretraining

    pretraining.pretrain(settings, command_line(), tell_next)


def tell_next(workdir, settings):
    """Prints the commands for the next steps."""
    next_steps.show(*next_steps.of_training(workdir, settings.data.eval_data))


if __name__ == "__main__":
    command.run("finetune_retrieval.py", parse, main)
