"""Short runs for tests of several files, by the library or as a command."""

import os
import subprocess
import sys

from conftest import ROOT
from experiments import PRETRAINING


def settings_of(scene_shards, workdir, **options):
    """Returns settings for four steps of a two-layer model; the test must use ``tiny_preset``."""
    shards = [",".join(paths) for paths in scene_shards]
    options = {
        "train_data": shards[0],
        "eval_data": shards[1],
        "workdir": str(workdir),
        "preset": "tiny",
        "steps": 4,
        "warmup_steps": 1,
        "batch_size": 40,
        "image_size": 32,
        "resize_size": 36,
        "vocabulary_size": 300,
        "eval_every": 4,
        "checkpoint_every": 2,
        "log_every": 1,
        **options,
    }
    return PRETRAINING["quickstart"].replace(**options)


def users_environment(**variables):
    """Returns the environment of a user, without the log level of TensorFlow that the tests set."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return environment


def run_recipe(name, *arguments):
    """Runs a recipe in its own process, as a user does."""
    return subprocess.run(
        [sys.executable, f"recipes/{name}", *arguments],
        cwd=ROOT,
        env=users_environment(PYTHONWARNINGS=""),
        capture_output=True,
        text=True,
        timeout=300,
    )
