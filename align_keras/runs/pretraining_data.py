"""The data of a pretraining run: finds and checks shards, opens vocabulary and held-out pairs."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from align_keras import checksums, files, progress
from align_keras.data import (
    checks,
    pipeline,
    records,
    scenes,
    shard_sets,
    vocabulary,
)
from align_keras.data.preparation import tfds_shards
from align_keras.data.shard_order import ShardCounts
from align_keras.errors import InputError, Place, concerning
from align_keras.evaluation.held_out import HeldOutPairs
from align_keras.models import pretrained
from align_keras.paths import AnyPath
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.tokenizer import read_vocabulary, write_vocabulary
from align_keras.runs import mixed_sources
from align_keras.runs.inputs import check_vocabulary
from align_keras.runs.presets import from_preset
from align_keras.runs.pretraining_parts import PAPER_SIZES, DataSettings, ModelSettings
from align_keras.wording import counted

#: Maximum number of pairs embedded at a time.
_EVAL_BATCH_SIZE = 256
#: Minimum number of pairs in a batch: each pair needs another one as its negative.
_LEAST_BATCH = 2


@dataclasses.dataclass
class RunData:
    """The opened data of a run."""

    counts: ShardCounts
    """The number of records of each training shard, by path."""
    preprocessor: AlignPreprocessor
    evaluation: HeldOutPairs | None
    zero_shot: HeldOutPairs | None
    sources: mixed_sources.TrainingSources


def with_sizes(data: DataSettings, model: str) -> DataSettings:
    """Fills in every size that was not given.

    Args:
        data: the given settings.
        model: the trained model whose sizes are the defaults; empty for the paper's sizes.
    """
    sizes = dict(PAPER_SIZES)
    antialias = data.antialias
    if model:
        with concerning("model"):
            own = from_preset(AlignPreprocessor.from_preset, model)
        sizes = {name: getattr(own, name) for name in sizes}
        antialias |= own.antialias
    ratio = sizes["resize_size"] / sizes["image_size"]
    given = {name: getattr(data, name) for name in sizes if getattr(data, name) is not None}
    if "image_size" in given:
        sizes["resize_size"] = round(ratio * given["image_size"])
    return dataclasses.replace(data, antialias=antialias, **{**sizes, **given})


def open_data(
    data: DataSettings, model: ModelSettings, workdir: AnyPath, batch_size: int, seed: int
) -> RunData:
    """Finds and checks the shards, or renders scenes, and opens all data.

    Args:
        data: data settings with all sizes.
        model: model settings; a pretrained model determines the vocabulary.
        workdir: the run's directory, for rendered scenes, packed TFDS sets and the vocabulary.
        batch_size: batch size of training, over all replicas.
        seed: decides the scenes, and the order of packed sets.

    Raises:
        InputError: if the data of a setting are missing, damaged or too small.
    """
    shards = find_shards(data, workdir, seed)
    if data.vocabulary:
        check_vocabulary(data.vocabulary)
    if "train_data" not in shards:
        shards |= quickstart_data(workdir / "data", seed)
    counts = {name: pipeline.shard_counts(paths) for name, paths in shards.items()}
    total = sum(counts["train_data"].values())
    sources = mixed_sources.opened(data.train_data, counts["train_data"], data.captions)
    least = min(total, sources.total)
    if least < batch_size:
        raise InputError(
            f"{batch_size:,} is more than the {counted(least, 'training pair')}",
            remedy=f"lower <batch_size> to {least:,} or less, or give more data"
            if least >= _LEAST_BATCH
            else f"training needs at least {_LEAST_BATCH} pairs; give more data",
            setting="batch_size",
        )
    preprocessor = make_preprocessor(data, model, workdir, shards["train_data"])
    print(
        f"{counted(total, 'training pair')} in {counted(len(shards['train_data']), 'shard')}, "
        f"{counted(len(preprocessor.vocabulary), 'word piece')}",
        flush=True,
    )
    with progress.working("preparing the held-out pairs"):
        held_out = {
            name: HeldOutPairs(counts[name], preprocessor, min(batch_size, _EVAL_BATCH_SIZE))
            for name in ("eval_data", "zero_shot_data")
            if name in counts
        }
    if data.zero_shot_data and len(held_out["zero_shot_data"].class_names) < 2:
        raise InputError(
            "its records have fewer than two class names",
            remedy="pack them with prepare_data.py <carry> class_name=COLUMN",
            setting="zero_shot_data",
        )
    zero_shot = held_out.get("zero_shot_data", held_out.get("eval_data"))
    evaluation = held_out.get("eval_data")
    return RunData(counts["train_data"], preprocessor, evaluation, zero_shot, sources)


def find_shards(data: DataSettings, workdir: AnyPath, seed: int) -> dict[str, list[str]]:
    """Finds and checks the given shards, by setting name."""
    shards = {}
    for name in ("train_data", "eval_data", "zero_shot_data"):
        if pattern := getattr(data, name):
            with concerning(name), _writing_into_workdir():
                if pattern.startswith("tfds:"):
                    shards[name] = tfds_shards.training_shards(pattern, workdir / "data", seed)
                else:
                    finder = mixed_sources if name == "train_data" else records
                    shards[name] = finder.find_shards(pattern)
                checks.check_shards(shards[name])
    return shards


@contextlib.contextmanager
def _writing_into_workdir() -> Iterator[None]:
    """If shards cannot be written, the error names the setting of the run's directory."""
    try:
        yield
    except InputError as error:
        if error.setting == "output":
            error.setting, error.remedy = "workdir", "remove it, or give another"
        raise


def make_preprocessor(
    data: DataSettings, model: ModelSettings, workdir: AnyPath, train_shards: list[str]
) -> AlignPreprocessor:
    """Creates the preprocessor that the towers need; pretrained towers determine parts of it."""
    sizes: dict[str, Any] = {
        "image_size": data.image_size,
        "resize_size": data.resize_size,
        "sequence_length": data.sequence_length,
        "antialias": data.antialias,
    }
    if model.model:
        with concerning("model"):
            preprocessor = from_preset(AlignPreprocessor.from_preset, model.model, **sizes)
    else:
        expected: dict[str, Any] = {}
        if model.image_encoder:
            with concerning("image_encoder"):
                expected |= pretrained.pixel_scaling(model.image_encoder)
        if model.text_encoder:
            with concerning("text_encoder"):
                expected |= pretrained.word_pieces(model.text_encoder)
        else:
            expected["vocabulary"] = open_vocabulary(data, workdir, train_shards)
        preprocessor = AlignPreprocessor(**sizes, **expected)
    keep_vocabulary(preprocessor.vocabulary, workdir)
    return preprocessor


def keep_vocabulary(pieces: list[str], workdir: AnyPath) -> None:
    """Writes the run's ``vocab.txt`` if the run is new; never overwrites another vocabulary.

    Raises:
        InputError: if there is another vocabulary, or the run's own is damaged or missing.
    """
    path, sums = workdir / "vocab.txt", workdir / "checksums.json"
    is_run = (workdir / "settings.json").exists()
    if is_run and not path.exists():
        raise files.missing(path)
    if path.exists() and path.read_bytes() != "\n".join([*pieces, ""]).encode():
        if is_run:
            problem = "these settings give another vocabulary"
            raise InputError(problem, Place(str(path)), files.RESTORE)
        raise InputError(
            "already exists, with other word pieces",
            Place(str(path)),
            "remove it, or give another",
            "workdir",
        )
    if not is_run:
        workdir.mkdir(parents=True, exist_ok=True)
        write_vocabulary(pieces, str(path))
    if not is_run or not sums.exists():  # earlier versions wrote no checksums
        checksums.write(sums, {path.name: checksums.of_file(path)})


def open_vocabulary(data: DataSettings, workdir: AnyPath, train_shards: list[str]) -> list[str]:
    """Reads the given vocabulary or, when resuming, the run's own; otherwise trains one."""
    if data.vocabulary:
        return read_vocabulary(data.vocabulary)
    if (workdir / "settings.json").exists():
        return _vocabulary_of_run(workdir)
    with concerning("train_data"):
        captions = records.read_captions(train_shards, data.vocabulary_captions)
        with progress.working("training the vocabulary"):
            return vocabulary.train_vocabulary(captions, data.vocabulary_size)


def _vocabulary_of_run(workdir: AnyPath) -> list[str]:
    try:
        for fault in checksums.faults(workdir / "checksums.json"):
            raise fault
        return read_vocabulary(str(workdir / "vocab.txt"))
    except InputError as error:
        error.remedy = files.RESTORE
        raise


def quickstart_data(directory: AnyPath, seed: int) -> dict[str, list[str]]:
    """Renders the quickstart's scenes unless they exist."""
    finished = directory / "finished"
    if not finished.exists():
        print(f"no training data given: rendering scenes into {directory}", flush=True)
        with (
            _writing_into_workdir(),
            shard_sets.made_here(directory, "train", "eval") as local,
            shard_sets.unfinished(local / "train", local / "eval") as work,
        ):
            scenes.write_scenes(work.folder, num_train=16_000, num_eval=500, seed=seed)
        finished.touch()
    return {f"{part}_data": shard_sets.find_set(directory / part) for part in ("train", "eval")}
