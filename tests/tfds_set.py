"""A small local set in TFDS's own layout; modules that import it are skipped without TFDS."""

import pytest
import tensorflow as tf

from align_keras.data import records

tfds = pytest.importorskip("tensorflow_datasets", reason="needs align-keras[tfds]")


def write_tfds_set(directory, shards):
    """Writes shards in the layout of coco_captions, two captions per image; returns the folder."""
    folder = directory / "scenes" / "1.0.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "captions": tfds.features.Sequence({"id": tf.int64, "text": tfds.features.Text()}),
        }
    )
    for index, shard in enumerate(shards):
        path = folder / f"scenes-train.tfrecord-{index:05d}-of-{len(shards):05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records.read_frames(shard):
                pair = records.parse_pair(record)
                captions = [pair["txt"].decode(), f"another look at {pair['key'].decode()}"]
                example = {
                    "image": pair["jpg"],
                    "image/filename": f"{pair['key'].decode()}.jpg",
                    "captions": [{"id": i, "text": text} for i, text in enumerate(captions)],
                }
                writer.write(features.serialize_example(features.encode_example(example)))
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=[
            tfds.core.SplitInfo(
                name="train",
                shard_lengths=[records.count_records(shard) for shard in shards],
                num_bytes=0,
                filename_template=tfds.core.ShardedFileTemplate(
                    dataset_name="scenes",
                    data_dir=folder,
                    split="train",
                    filetype_suffix="tfrecord",
                ),
            )
        ],
    )
    return folder
