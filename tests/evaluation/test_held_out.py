import numpy as np
import pytest
import tensorflow as tf

from align_keras.data import records
from align_keras.data.pipeline import shard_counts
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError
from align_keras.evaluation.held_out import HeldOutPairs


class PixelModel:
    """Embeds an image as its pixels, and a caption as the next class or as a number."""

    distribute_strategy = tf.distribute.get_strategy()

    def __init__(self, texts=None):
        self.texts = texts

    def predict(self, dataset, verbose, callbacks):
        batches = list(dataset.as_numpy_iterator())
        outputs = {
            name: np.concatenate([batch[name] for batch in batches])
            for name in ("positions", "valid", "pixels")
        }
        self.embedded = outputs["positions"][outputs["positions"] >= 0].tolist()
        pixels = outputs.pop("pixels").reshape(len(outputs["valid"]), -1) / 255.0
        pixels = pixels / (np.linalg.norm(pixels, axis=1, keepdims=True) + 1e-9)
        return {**outputs, "image_embeddings": pixels}

    def encode_texts(self, inputs, batch_size):
        if isinstance(inputs, list):
            self.captions = inputs
            return np.arange(len(inputs), dtype="float32")[:, None] + [0, 0.5]
        return np.asarray(self.texts[: len(inputs["token_ids"])], "float32")


@pytest.fixture
def damaged(scene_shards, tmp_path):
    """Held-out scenes; the images of records 3 and 11 cannot be decoded."""
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
    model = PixelModel()
    embeddings = held_out.embed(model)
    assert embeddings["rows"].tolist() == [i for i in range(10) if i != 3]
    found = [model.captions[int(text[0])] for text in embeddings["text_embeddings"]]
    assert found == [held_out.captions[row] for row in embeddings["rows"]]
    source = [records.parse_pair(r) for r in records.read_frames(damaged)]
    for row, embedding in zip(embeddings["rows"], embeddings["image_embeddings"], strict=True):
        assert held_out.captions[row] == source[row]["txt"].decode()
        label = held_out.class_names[held_out.labels[row]]
        assert label == source[row]["class_name"].decode()
        pixels = preprocessor.decode_centre_crop(source[row]["jpg"]).numpy().ravel() / 255.0
        np.testing.assert_allclose(embedding, pixels / np.linalg.norm(pixels), atol=1e-5)
    metrics, _ = held_out.retrieval(
        embeddings | {"text_embeddings": embeddings["image_embeddings"]}
    )
    assert metrics["i2t_recall_at_1"] == 1.0


def test_an_image_is_embedded_once_for_all_its_captions(held_out_images, tmp_path, preprocessor):
    one, other, third = held_out_images[:3]
    pairs = [(one, ""), (other, "first"), (one, "second"), (one, "third"), (other, "second")]
    pairs += [(third, "fourth"), (b"", "fifth"), (b"broken", "sixth"), (b"broken", "seventh")]
    with ShardWriter(str(tmp_path / "several"), 4) as writer:
        for row, (jpg, text) in enumerate(pairs):
            # The last image has the same id as the first but other bytes.
            name = {one: "one", other: "other", third: "one"}.get(jpg, f"{row}")
            writer.write(records.make_record(jpg, text, "k", image_id=name))
    held_out = HeldOutPairs(shard_counts(writer.shards), preprocessor, batch_size=2)
    model = PixelModel()
    embeddings = held_out.embed(model)
    assert model.embedded == [0, 1, 5]  # also 7, but it does not decode
    assert embeddings["rows"].tolist() == [1, 2, 3, 4, 5]
    groups = embeddings["groups"]
    assert groups[0] == groups[3] != groups[1] == groups[2] == groups[4]
    images = embeddings["image_embeddings"]
    for row, jpg in enumerate((other, one, one, other, third)):
        pixels = preprocessor.decode_centre_crop(jpg).numpy().ravel() / 255.0
        np.testing.assert_allclose(images[row], pixels / np.linalg.norm(pixels), atol=1e-5)
    # Equal captions are also embedded only once.
    assert model.captions == ["first", "second", "third", "fourth"]


def test_zero_shot_reports_unseen_classes_apart(scene_shards, preprocessor):
    held_out = HeldOutPairs(shard_counts(scene_shards[1]), preprocessor, batch_size=8)
    model = PixelModel()
    embeddings = held_out.embed(model)
    # Each class is embedded as the mean of its unseen pictures, so these are all classified
    # correctly.
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
    # Without image ids, every record counts as a separate image.
    assert sorted(embeddings["groups"].tolist()) == list(range(10))
    metrics, _ = held_out.zero_shot(PixelModel(), embeddings, ["a {}"])
    assert metrics == {"zero_shot_top_1": None, "zero_shot_unseen_top_1": None}


def test_data_without_a_readable_pair_are_an_error(scene_shards, preprocessor, monkeypatch):
    held_out = HeldOutPairs(shard_counts(scene_shards[1]), preprocessor, batch_size=4)
    outputs = {"valid": np.zeros(30, bool), "positions": np.arange(30)}
    monkeypatch.setattr(held_out, "_predict", lambda _: outputs)
    with pytest.raises(InputError, match="none of the pairs is readable; check the shards"):
        held_out.embed(PixelModel())
