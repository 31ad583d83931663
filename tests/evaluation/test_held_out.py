import numpy as np
import pytest
import tensorflow as tf

from align_keras.data import records
from align_keras.data.pipeline import shard_counts
from align_keras.errors import InputError
from align_keras.evaluation.held_out import HeldOutPairs


class PixelModel:
    """Embeds an image as its pixels, and a caption as the class whose turn it is."""

    distribute_strategy = tf.distribute.get_strategy()

    def __init__(self, texts=None):
        self.texts = texts

    def predict(self, dataset, verbose, callbacks):
        batches = list(dataset.as_numpy_iterator())
        outputs = {
            name: np.concatenate([batch[name] for batch in batches])
            for name in ("positions", "valid", "image_ids", "caption_ids", "pixels")
        }
        pixels = outputs.pop("pixels").reshape(len(outputs["valid"]), -1) / 255.0
        pixels = pixels / (np.linalg.norm(pixels, axis=1, keepdims=True) + 1e-9)
        return {**outputs, "image_embeddings": pixels, "text_embeddings": pixels}

    def encode_texts(self, inputs, batch_size):
        return np.asarray(self.texts[: len(inputs["token_ids"])], "float32")


@pytest.fixture
def damaged(scene_shards, tmp_path):
    """Held-out scenes; the images of records 3 and 11 do not decode."""
    path = str(tmp_path / "held_out.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for index, record in enumerate(records.read_frames(scene_shards[1][0])):
            fields = {
                name: value.decode() if isinstance(value, bytes) and name != "jpg" else value
                for name, value in records.parse_pair(record).items()
            }
            if index in (3, 11):
                fields["jpg"] = b"\xff\xd8broken"
            writer.write(records.make_record(**fields))
    return path


def test_rows_captions_and_labels_stay_together_beside_corrupt_pairs(damaged, preprocessor):
    held_out = HeldOutPairs(shard_counts([damaged]), preprocessor, batch_size=8)
    embeddings = held_out.embed(PixelModel())
    assert embeddings["rows"].tolist() == [i for i in range(10) if i != 3]
    source = [records.parse_pair(r) for r in records.read_frames(damaged)]
    for row, embedding in zip(embeddings["rows"], embeddings["image_embeddings"], strict=True):
        assert held_out.captions[row] == source[row]["txt"].decode()
        label = held_out.class_names[held_out.labels[row]]
        assert label == source[row]["class_name"].decode()
        pixels = preprocessor.decode_centre_crop(source[row]["jpg"]).numpy().ravel() / 255.0
        np.testing.assert_allclose(embedding, pixels / np.linalg.norm(pixels), atol=1e-5)
    metrics, _ = held_out.retrieval(embeddings)
    assert metrics["i2t_recall_at_1"] == 1.0


def test_zero_shot_reports_unseen_classes_apart(scene_shards, preprocessor):
    held_out = HeldOutPairs(shard_counts(scene_shards[1]), preprocessor, batch_size=8)
    model = PixelModel()
    embeddings = held_out.embed(model)
    # Each class is embedded as the mean of the unseen pictures of it: those are all right.
    dim = embeddings["image_embeddings"].shape[1]
    texts = np.random.default_rng(0).normal(size=(len(held_out.class_names), dim))
    for row, embedding in zip(embeddings["rows"], embeddings["image_embeddings"], strict=True):
        if held_out.unseen[row]:
            texts[held_out.labels[row]] = embedding * 1000
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    model.texts = texts
    metrics, chance = held_out.zero_shot(model, embeddings, ["a {}"])
    rows = [r for r in embeddings["rows"] if held_out.unseen[r]]
    firsts = len({held_out.labels[r] for r in rows}) / len(rows)
    assert metrics["zero_shot_unseen_top_1"] >= firsts > 0.3
    assert metrics["zero_shot_top_1"] < metrics["zero_shot_unseen_top_1"]
    assert chance["zero_shot_top_1"] == 1 / len(held_out.class_names)


def test_without_class_names_there_is_no_accuracy(tmp_path, scene_shards, preprocessor):
    path = str(tmp_path / "plain.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records.read_frames(scene_shards[1][0]):
            fields = records.parse_pair(record)
            writer.write(records.make_record(fields["jpg"], "a caption", "k"))
    held_out = HeldOutPairs(shard_counts([path]), preprocessor, batch_size=4)
    embeddings = held_out.embed(PixelModel())
    # Without image ids every record is an image of its own.
    assert sorted(embeddings["groups"].tolist()) == list(range(10))
    metrics, _ = held_out.zero_shot(PixelModel(), embeddings, ["a {}"])
    assert metrics == {"zero_shot_top_1": None, "zero_shot_unseen_top_1": None}


def test_data_without_a_readable_pair_are_an_error(scene_shards, preprocessor, monkeypatch):
    held_out = HeldOutPairs(shard_counts(scene_shards[1]), preprocessor, batch_size=4)
    monkeypatch.setattr(held_out, "_predict", lambda _: {"valid": np.zeros(30, bool)})
    with pytest.raises(InputError, match="none of the pairs is readable; check the shards"):
        held_out.embed(PixelModel())
