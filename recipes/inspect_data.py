"""Looks into shards before a long run: what a run would skip or refuse, sizes, repeats, speed.

    python recipes/inspect_data.py --data='SHARDS/train-*.tfrecord'

Prints a summary and writes it as JSON beside a picture of random pairs. Ends with status 1 where
the shards would spoil a run.
"""

import dataclasses
import json
import sys
from pathlib import Path

from quiet_tensorflow import load_quietly

load_quietly()

import tensorflow as tf
import tqdm
import tyro

from align_keras import AlignPreprocessor
from align_keras.data import inspection, inspection_summary, records, vocabulary
from align_keras.preprocessing.tokenizer import WordPieceTokenizer, read_vocabulary


@dataclasses.dataclass(frozen=True)
class InspectSettings:
    """Looks into TFRecord shards before a long run."""

    data: str
    """Pattern of the shards, or several joined by commas."""
    output: str = "inspection"
    """Folder for report.json and samples.png."""
    max_records: int = 100_000
    """Records to read and decode in all, the first of each shard; they take about 100 bytes of
    memory each."""
    vocabulary: str = ""
    """BERT vocab.txt to count captions' word pieces with. Empty: not counted."""
    image_size: int = 289
    """Of training, pixels: for the throughput."""
    resize_size: int = 346
    """Of training, pixels: for the throughput."""
    sequence_length: int = 64
    """Of training, word pieces: for the throughput and the count of trimmed captions."""
    antialias: bool = False
    """As in training: for the throughput."""
    batch_size: int = 256
    """Pairs a batch, for the throughput."""
    seconds: float = 5.0
    """How long to run the training pipeline for its throughput; 0 leaves it out."""
    samples: int = 24
    """Pairs on the picture."""
    max_unusable: float = 0.01
    """Share of corrupt or undecodable records above which the shards count as spoilt."""
    seed: int = 0
    """Decides the pairs on the picture."""

    def check(self):
        """Raises a ValueError that names the flag on what cannot be."""
        for name in ("max_records", "samples", "batch_size"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag}: must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.max_unusable <= 1:
            raise ValueError(f"--max-unusable: must be from 0 to 1, not {self.max_unusable}")


def main(settings):
    """Reads, judges, times, writes and prints; returns whether the shards are fit for a run."""
    settings.check()
    shards = records.find_shards(settings.data, "--data")
    count_word_pieces = word_piece_counter(settings.vocabulary) if settings.vocabulary else None
    found = inspection.Inspection(count_word_pieces, settings.samples, settings.seed)
    for shard in tqdm.tqdm(shards, unit="shard", disable=None):
        found.read_shard(shard, max(1, settings.max_records // len(shards)))
    report = found.report()
    errors, notes = inspection_summary.problems(
        report, settings.max_unusable, settings.resize_size, settings.sequence_length
    )
    if settings.seconds and not errors:
        report["images_per_second"] = throughput(settings, found.counts)
    report |= {"errors": errors, "warnings": notes}
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if found.samples:
        inspection_summary.draw_sheet(output / "samples.png", found.samples)
    print(inspection_summary.format_summary(report))
    for line in [f"warning: {note}" for note in notes] + [f"error: {error}" for error in errors]:
        print(line)
    print(f"written: {output}/ (report.json, samples.png)")
    return not errors


def word_piece_counter(path):
    """Counts the word pieces of captions, untrimmed, with the vocabulary of a file."""
    tokenizer = WordPieceTokenizer(read_vocabulary(path))
    return lambda captions: tokenizer.tokenize(tf.constant(captions)).row_lengths().numpy()


def throughput(settings, counts):
    """Images a second of the training pipeline; without a vocabulary given, with a small one."""
    pieces = settings.vocabulary or vocabulary.train_vocabulary(
        records.read_captions(list(counts), 10_000), 2_000
    )
    preprocessor = AlignPreprocessor(
        pieces,
        settings.image_size,
        settings.resize_size,
        settings.sequence_length,
        settings.antialias,
    )
    return inspection.measure_throughput(
        counts, preprocessor, settings.batch_size, settings.seconds, settings.seed
    )


if __name__ == "__main__":
    try:
        fit = main(tyro.cli(InspectSettings, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"inspect_data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("inspect_data.py: interrupted")
    sys.exit(0 if fit else 1)
