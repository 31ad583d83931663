"""Inspects shards from start to end; ``recipes/inspect_data.py`` runs it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from align_keras import files, paths, progress
from align_keras.data import inspection, inspection_summary, pipeline, records, vocabulary
from align_keras.data.inspection_settings import Sampling, TrainingInput
from align_keras.errors import concerning
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.tokenizer import WordPieceTokenizer, read_vocabulary


def inspect(
    shards: Sequence[str],
    output: str | paths.AnyPath,
    sampling: Sampling | None = None,
    training: TrainingInput | None = None,
) -> dict[str, Any]:
    """Reads and checks shards, measures the speed of the training pipeline and writes a report.

    Args:
        shards: paths of the shards.
        output: folder for ``report.json`` and ``samples.png``.
        sampling: how many records to inspect and show; by default ``Sampling()``.
        training: input of the planned training; by default ``TrainingInput()``.

    Returns:
        The contents of ``report.json``: the fields of ``Inspection.report``; ``errors`` and
        ``warnings``, lists of lines; and, if there are no errors, ``images_per_second`` with the
        ``training_input`` for which it was measured.

    Raises:
        InputError: if a value is out of range, a shard cannot be read, or the vocabulary file does
            not exist.
    """
    sampling, training = sampling or Sampling(), training or TrainingInput()
    sampling.check()
    training.check()
    with concerning("vocabulary"):
        counter = word_piece_counter(training.vocabulary) if training.vocabulary else None
    found = inspection.Inspection(counter, sampling.samples, sampling.seed)
    for shard in progress.watch(shards, "inspecting shards", "shard", len(shards)):
        found.read_shard(shard, max(1, sampling.max_records // len(shards)))
    report = found.report()
    errors, notes = inspection_summary.problems(
        report, sampling.max_unusable, training.resize_size, training.sequence_length
    )
    if training.seconds and not errors:
        preprocessor = _preprocessor(training, found.counts)
        with progress.working("measuring the speed of the training pipeline"):
            report["images_per_second"] = measure_throughput(
                found.counts, preprocessor, training.batch_size, training.seconds, sampling.seed
            )
        names = ("image_size", "resize_size", "batch_size")
        report["training_input"] = {name: getattr(training, name) for name in names}
    report |= {"errors": errors, "warnings": notes}
    with concerning("output"):
        output = paths.path_of(output)
    output.mkdir(parents=True, exist_ok=True)
    files.write_whole(output / "report.json", json.dumps(report, indent=2) + "\n")
    if found.samples:
        with progress.working("drawing samples"):
            inspection_summary.draw_sheet(output / "samples.png", found.samples)
    return report


def word_piece_counter(path: str) -> Callable[[list[str]], Sequence[int]]:
    """A function that counts the word pieces of captions, before trimming."""
    tokenizer = WordPieceTokenizer(read_vocabulary(path))
    return lambda captions: tokenizer.tokenize(tf.constant(captions)).row_lengths().numpy()


def _preprocessor(training: TrainingInput, counts: Mapping[str, int]) -> AlignPreprocessor:
    """The preprocessor of the planned training; makes a small vocabulary if none is given."""
    pieces = training.vocabulary or vocabulary.train_vocabulary(
        records.read_captions(list(counts), 10_000), 2_000
    )
    return AlignPreprocessor(
        pieces,
        training.image_size,
        training.resize_size,
        training.sequence_length,
        training.antialias,
    )


def measure_throughput(
    counts: Mapping[str, int],
    preprocessor: AlignPreprocessor,
    batch_size: int,
    seconds: float,
    seed: int = 0,
) -> float:
    """Speed of the training pipeline alone, in images per second.

    Args:
        counts: the number of records of each shard, by path.
        preprocessor: preprocessor with a vocabulary.
        batch_size: pairs per batch; all pairs if there are fewer.
        seconds: minimum time to draw batches; at least two are drawn.
        seed: seed of the pipeline.
    """
    batch_size = min(batch_size, sum(counts.values()))
    batches = iter(pipeline.training_dataset(counts, preprocessor, batch_size, seed=seed))
    next(batches)
    start, drawn = time.perf_counter(), 0
    while drawn < 2 or time.perf_counter() - start < seconds:
        next(batches)
        drawn += 1
    return drawn * batch_size / (time.perf_counter() - start)
