"""``pretrain.py`` with a model of two layers and settings that make it short.

    python tests/faults/short_pretraining.py TRAIN_SHARDS EVAL_SHARDS WORKDIR OPTIONS

Shards are joined by commas, ``OPTIONS`` is JSON. With ``TF_CONFIG`` it is one of several workers.
"""

import json
import sys

import pytest
from conftest import add_tiny_preset
from short_runs import settings_of

from align_keras.runs import command, pretraining


def main(train, held_out, workdir, options):
    """Runs it as the recipe does."""
    shards = train.split(","), held_out.split(",")
    settings = settings_of(shards, workdir, **json.loads(options))
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_preset(patch)
        command.run("pretrain.py", lambda: settings, pretraining.pretrain)


if __name__ == "__main__":
    main(*sys.argv[1:])
