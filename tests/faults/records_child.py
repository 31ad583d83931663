"""Reads a shard of damaged records with every reader of shards and prints the counts.

python records_child.py SHARD OUTPUT
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from align_keras.data import inspection, pipeline, records, vocabulary
from align_keras.data.examples import open_examples, open_images
from align_keras.data.preparation import filters, single_machine
from align_keras.data.preparation.judging import Preparation
from align_keras.errors import InputError
from align_keras.evaluation.held_out import HeldOutPairs
from align_keras.preprocessing.decoding import decoder, faults
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.runs.classification_data import LabelledImages

BATCH = 50


def main(shard, output):
    """Runs every reader of shards and counts its records."""
    counts = pipeline.shard_counts([shard])
    total = counts[shard]
    pieces = vocabulary.train_vocabulary(records.read_captions([shard], 1_000), 300)
    preprocessor = AlignPreprocessor(pieces, 16, 20, 12)
    training = pipeline.training_dataset(counts, preprocessor, BATCH).take(total // BATCH)
    skipped = sum(int((batch["lost"].numpy() > 0).sum()) for batch in training)
    evaluation = HeldOutPairs(counts, preprocessor, BATCH)
    valid = len(evaluation.embed(_Blind())["rows"])
    found = inspection.Inspection()
    found.read_shard(shard, total)
    report = single_machine.prepare(
        Preparation(open_examples(shard), filters.NO_RULES), f"{output}/packed", 1_000
    )
    captioned = sum(bool(example.captions) for example in open_examples(shard))
    figures = {
        "records": total,
        # Only the full batches of the epoch are counted.
        "skipped in training": skipped,
        "valid in evaluation": valid,
        "usable in inspection": found.report()["usable"],
        "packed": report["pairs_out"],
        "reasons": report["reasons"],
        "captioned": captioned,
        "images to search": sum(map(decodes, open_images(shard).images())),
        "labelled": labelled(shard),
    }
    print(json.dumps(figures))


class _Blind:
    """Stands for a model; its embeddings are all alike."""

    distribute_strategy = tf.distribute.get_strategy()

    def predict(self, dataset, **_):
        batches = list(dataset.as_numpy_iterator())
        found = {
            name: np.concatenate([own[name] for own in batches]) for name in ("positions", "valid")
        }
        return {**found, "image_embeddings": np.ones((len(found["valid"]), 2), "float32")}

    def encode_texts(self, texts, batch_size):
        return np.ones((len(texts), 2), "float32")


def labelled(shard):
    """Returns the number of images in an epoch of fine-tuning, or the error as text."""
    try:
        images = LabelledImages("scenes", open_examples(shard), "", 0)
    except InputError as error:
        return str(error)
    assert images.count == sum(1 for _ in images.read(0))
    return images.count


def decodes(example):
    """Returns whether an image would be indexed."""
    try:
        decoder.decode_pixels(example.read_image())
    except (ValueError, faults.ImageFaultError):
        return False
    return True


if __name__ == "__main__":
    np.seterr(all="raise")
    tf.get_logger().setLevel("ERROR")
    main(sys.argv[1], Path(sys.argv[2]))
