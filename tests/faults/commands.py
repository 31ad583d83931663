"""The commands that are killed, on small data, each as a function that runs in its own process.

Each function runs the command's ``main`` with ``runs/command.py``, as the recipe does, with
settings that make it short. ``moment`` is the place in its work at which the process sends itself a
signal; if it is empty, the process is left alone.
"""

import functools
import json
import os
import resource
import runpy
import signal
import threading
import time
from pathlib import Path

import experiments
import keras
import pytest
import short_runs
import tensorflow as tf
from conftest import ROOT, TINY_IMAGE_SIZE, TINY_SEQUENCE, add_tiny_preset, build_tiny_model

from align_keras import AlignPreprocessor, figures, files
from align_keras.data import records, scenes, vocabulary
from align_keras.errors import InputError
from align_keras.runs import (
    checkpoints,
    classification,
    command,
    log,
    pretraining,
    pretraining_evaluation,
)
from align_keras.runs.classification_settings import Phase
from align_keras.search import indexing

#: Functions in which processes signal themselves: a module or class, and a name.
CALLS = {
    "the beginning": (checkpoints.RunCheckpoints, "restore"),
    "a step": (log.TrainingLog, "on_train_batch_end"),
    "an evaluation": (pretraining_evaluation, "evaluate_held_out"),
    "an evaluation of classes": (classification, "evaluate"),
    "a checkpoint": (checkpoints.RunCheckpoints, "save"),
    "the best checkpoint": (checkpoints.RunCheckpoints, "save_if_best"),
    "a replacement": (os, "replace"),
    "a renaming": (os, "rename"),
    "a removal": (os, "unlink"),
}
RECIPES = {
    name: f"{name}.py"
    for name in ("pretrain", "finetune_retrieval", "finetune_classification", "prepare_data")
} | {
    "index": "search.py",
    "pretrain_as_worker": "pretrain.py",
    "export_saved_model": "export.py",
    "export_onnx": "export.py",
    "export_litert": "export.py",
}


def make_material(folder):
    """Makes scenes as shards, as folders of classes and as a table, and a model to start from."""
    folder = Path(folder)
    train, held_out = scenes.write_scenes(folder, num_train=120, num_eval=30, shard_size=10)
    rows = []
    for split, pattern in (("train", train), ("test", held_out)):
        frames = [f for shard in records.find_shards(pattern) for f in records.read_frames(shard)]
        for number, pair in enumerate(map(records.parse_pair, frames)):
            kind = ("ring", "cross")[number % 2]
            path = folder / "photos" / split / kind / f"{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pair["jpg"])
            name = str(path.relative_to(folder / "photos"))
            row = {"image": name, "caption": pair["txt"].decode(), "class_name": kind}
            rows.append(row | {"split": split})
    table = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "photos" / "pairs.jsonl").write_text(table)
    keras.utils.set_random_seed(1)
    pieces = vocabulary.train_vocabulary(
        records.read_captions(records.find_shards(train), 1000), 300
    )
    preprocessor = AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)
    model = build_tiny_model(0.1, preprocessor=preprocessor, vocabulary_size=len(pieces))
    model.save_to_preset(folder / "start" / "preset")


def run(name, material, workdir, moment=None, limit=0):
    """Runs a command; a second run with the same arguments continues an interrupted one.

    With a limit, no file may have more bytes, as on a full disk.
    """
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        if moment:
            signal_within(patch, **moment)
        parse, main = COMMANDS[name](Path(material), str(workdir))
        command.run(RECIPES[name], parse, main)


def make_quick(patch):
    """Replaces slow functions whose work is not under test, and adds a tiny model."""
    add_tiny_preset(patch)
    # Commits after every batch, because there are only a few images.
    patch.setattr(indexing, "_COMMIT_SECONDS", 0.0)
    patch.setattr(figures, "save", save_nothing)

    def decode(self, image):
        pixels = tf.image.resize(tf.io.decode_jpeg(image, channels=3), [self.image_size] * 2)
        return tf.cast(pixels, tf.uint8)

    def augment(self, image, seed, *_):
        # The pixels depend on the seed, which depends on the position of the run in the data.
        pixels = tf.cast(decode(self, image), tf.float32)
        return tf.cast(pixels * tf.random.stateless_uniform([], seed), tf.uint8)

    patch.setattr(AlignPreprocessor, "decode_centre_crop", decode)
    patch.setattr(AlignPreprocessor, "decode_random_crop", augment)
    patch.setattr(AlignPreprocessor, "decode_random_area", augment)


def save_nothing(_, path):
    """Writes an empty picture; pictures are not compared."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(Path(path), "")


def signal_within(patch, call, number, delay=0.0, sent=signal.SIGKILL):
    """Makes the process signal itself ``delay`` seconds after the n-th call of a function began.

    The process prints the time of the signal.
    """
    owner, name = CALLS[call]
    original, left = getattr(owner, name), [number]

    def send():
        time.sleep(delay)
        print(f"signalled at {time.time()}", flush=True)
        os.kill(os.getpid(), sent)

    @functools.wraps(original)
    def watched(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            threading.Thread(target=send).start()
        return original(*arguments, **options)

    patch.setattr(owner, name, watched)


# === The commands: how settings are read, and what is run ===


def _pretrain(material, workdir, **options):
    shards = [records.find_shards(material / f"{part}-*.tfrecord") for part in ("train", "eval")]
    options = {"steps": 8, "batch_size": 20, **options}
    settings = short_runs.settings_of(shards, workdir, **options)
    return lambda: settings, pretraining.pretrain


def _finetune_retrieval(material, workdir):
    settings = experiments.PRETRAINING["finetune_flickr30k"].replace(
        model=str(material / "start"),
        train_data=str(material / "train-*.tfrecord"),
        eval_data=str(material / "eval-*.tfrecord"),
        workdir=workdir,
        batch_size=20,
        steps=8,
        eval_every=4,
        checkpoint_every=2,
        log_every=1,
        learning_rate=1e-3,
    )
    return lambda: settings, pretraining.pretrain


def _finetune_classification(material, workdir):
    settings = experiments.CLASSIFICATION["small_set"].replace(
        model=str(material / "start"),
        task="shapes",
        data=str(material / "photos" / "pairs.jsonl"),
        workdir=workdir,
        head=Phase(0.1, steps=4, eval_size=20),
        full=Phase(0.1, steps=6, backbone_factor=0.5, image_size=15, eval_size=21),
        batch_size=16,
        checkpoint_every=2,
        log_every=1,
    )
    return lambda: settings, classification.finetune


def _index(material, workdir):
    recipe = runpy.run_path(str(ROOT / "recipes" / "search.py"))
    settings = recipe["IndexSettings"](
        model=str(material / "start"),
        images=str(material / "photos"),
        output=workdir,
        batch_size=4,
    )
    return lambda: settings, recipe["index"]


def _prepare_data(material, workdir):
    recipe = runpy.run_path(str(ROOT / "recipes" / "prepare_data.py"))
    settings = recipe["PrepareSettings"](
        captions=str(material / "photos" / "pairs.jsonl"),
        output=str(Path(workdir) / "set"),
        carry=("class_name",),
        shard_size=8,
        max_words=12,
    )

    def prepare(settings):
        try:
            recipe["main"](settings)
        except InputError as error:
            # A complete set is never overwritten, so the command has finished.
            if not error.problem.endswith("already exists"):
                raise

    return lambda: settings, prepare


def _pretrain_as_worker(material, workdir):
    """Trains as a worker of ``TF_CONFIG``; there are enough steps to interrupt the run."""
    options = {"strategy": "multi_worker", "checkpoint_every": 4, "eval_every": 20}
    options["log_every"] = int(os.environ.get("LOG_EVERY", "1"))
    return _pretrain(material, workdir, steps=30, **options)


def _export(material, output, format):
    recipe = runpy.run_path(str(ROOT / "recipes" / "export.py"))
    settings = recipe["ExportSettings"](str(material / "start"), output, format)
    return lambda: settings, recipe["main"]


COMMANDS = {
    "pretrain": _pretrain,
    "pretrain_as_worker": _pretrain_as_worker,
    "finetune_retrieval": _finetune_retrieval,
    "finetune_classification": _finetune_classification,
    "index": _index,
    "prepare_data": _prepare_data,
    "export_saved_model": functools.partial(_export, format="saved_model"),
    "export_onnx": functools.partial(_export, format="onnx"),
    "export_litert": functools.partial(_export, format="litert"),
}
