"""The data of a pretraining run: shards found and checked, the vocabulary, what evaluates."""

import dataclasses

import tensorflow as tf
from experiments import PAPER_SIZES, flag_of
from run_presets import from_preset

from align_keras import AlignPreprocessor, errors
from align_keras.data import checks, pipeline, records, scenes, vocabulary
from align_keras.data.preparation import tfds_shards
from align_keras.evaluation.held_out import HeldOutPairs
from align_keras.models import pretrained
from align_keras.preprocessing.tokenizer import read_vocabulary, write_vocabulary


@dataclasses.dataclass
class RunData:
    """The opened data of a run: record counts by shard, and what evaluates."""

    counts: dict
    preprocessor: AlignPreprocessor
    evaluation: HeldOutPairs | None
    zero_shot: HeldOutPairs | None


def with_sizes(settings):
    """The settings with a number for every size that was not given."""
    sizes = dict(PAPER_SIZES)
    antialias = settings.antialias
    if settings.model:
        own = from_preset(AlignPreprocessor.from_preset, settings.model)
        sizes = {name: getattr(own, name) for name in sizes}
        antialias |= own.antialias
    ratio = sizes["resize_size"] / sizes["image_size"]
    given = {name: getattr(settings, name) for name in sizes if getattr(settings, name) is not None}
    if "image_size" in given:
        sizes["resize_size"] = round(ratio * given["image_size"])
    return dataclasses.replace(settings, antialias=antialias, **{**sizes, **given})


def open_data(settings, workdir):
    """Finds and checks the shards, rendering them where none are given; opens everything."""
    shards = {}
    for name in ("train_data", "eval_data", "zero_shot_data"):
        if pattern := getattr(settings, name):
            with errors.concerning(name):
                if pattern.startswith("tfds:"):
                    pattern = tfds_shards.training_shards(pattern, workdir / "data", settings.seed)
                shards[name] = records.find_shards(pattern)
                checks.check_shards(shards[name])
    if settings.vocabulary:
        if not tf.io.gfile.exists(settings.vocabulary):
            raise FileNotFoundError(f"--vocabulary: no file {settings.vocabulary}")
        read_vocabulary(settings.vocabulary)
    if "train_data" not in shards:
        shards |= quickstart_data(workdir / "data", settings.seed)
    counts = {name: pipeline.shard_counts(paths) for name, paths in shards.items()}
    total = sum(counts["train_data"].values())
    if total < settings.batch_size:
        source = "--train-data" if settings.train_data else "the scenes"
        raise ValueError(
            f"--batch-size: {settings.batch_size:,} is more than the {total:,} pairs of {source}; "
            f"lower it to {total:,} or less, or give more data"
        )
    preprocessor = make_preprocessor(settings, workdir, shards["train_data"])
    print(
        f"{total:,} training pairs in {len(shards['train_data'])} shards, "
        f"{len(preprocessor.vocabulary):,} word pieces",
        flush=True,
    )
    pairs = {
        name: HeldOutPairs(counts[name], preprocessor, min(settings.batch_size, 256), flag_of(name))
        for name in ("eval_data", "zero_shot_data")
        if name in counts
    }
    if settings.zero_shot_data and len(pairs["zero_shot_data"].class_names) < 2:
        raise ValueError(
            "--zero-shot-data: its records have no two values of class_name; pack them with "
            "prepare_data.py --carry class_name=COLUMN"
        )
    evaluation = pairs.get("eval_data")
    return RunData(
        counts["train_data"], preprocessor, evaluation, pairs.get("zero_shot_data", evaluation)
    )


def make_preprocessor(settings, workdir, train_shards):
    """What the towers expect: of their presets where they start from those."""
    sizes = {
        "image_size": settings.image_size,
        "resize_size": settings.resize_size,
        "sequence_length": settings.sequence_length,
        "antialias": settings.antialias,
    }
    if settings.model:
        preprocessor = from_preset(AlignPreprocessor.from_preset, settings.model, **sizes)
    else:
        expected = {}
        if settings.image_encoder:
            expected |= pretrained.pixel_scaling(settings.image_encoder)
        if settings.text_encoder:
            expected |= pretrained.word_pieces(settings.text_encoder)
        else:
            expected["vocabulary"] = open_vocabulary(settings, workdir, train_shards)
        preprocessor = AlignPreprocessor(**sizes, **expected)
    workdir.mkdir(parents=True, exist_ok=True)
    write_vocabulary(preprocessor.vocabulary, str(workdir / "vocab.txt"))
    return preprocessor


def open_vocabulary(settings, workdir, train_shards):
    """Reads the vocabulary given or, on resuming, the run's own; else trains one."""
    if settings.vocabulary:
        return read_vocabulary(settings.vocabulary)
    if (workdir / "settings.json").exists():
        return read_vocabulary(str(workdir / "vocab.txt"))
    captions = records.read_captions(train_shards, settings.vocabulary_captions)
    return vocabulary.train_vocabulary(captions, settings.vocabulary_size)


def quickstart_data(directory, seed):
    """Renders the quickstart's scenes unless they are there."""
    finished = directory / "finished"
    if not finished.exists():
        print(f"no --train-data: rendering scenes into {directory}", flush=True)
        scenes.write_scenes(directory, num_train=16_000, num_eval=500, seed=seed)
        finished.touch()  # an interrupted rendering is done again
    return {
        f"{part}_data": records.find_shards(f"{directory}/{part}-*.tfrecord")
        for part in ("train", "eval")
    }
