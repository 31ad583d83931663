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

import sys

import pretrain


def parse_settings(arguments):
    """Reads the flags of ``pretrain.py``; --model must be among them."""
    settings = pretrain.parse_settings(arguments, "finetune_flickr30k", __doc__)
    if not settings.model:
        raise ValueError("--model: give the model to start from, a preset or a run's directory")
    return settings


if __name__ == "__main__":
    pretrain.run_command("finetune_retrieval.py", lambda: parse_settings(sys.argv[1:]))
