"""Work that repeated evaluations of a run must do only once."""

import numpy as np
import pytest
import tensorflow as tf

from align_keras.data.records import make_record
from align_keras.evaluation import held_out


@pytest.fixture
def batches(tiny_model):
    """Two batches of four pairs, like those of ``pipeline.evaluation_dataset``."""
    images = np.zeros((8, 20, 20, 3), "uint8")
    inputs = tiny_model.preprocessor({"images": images, "captions": ["a red ring"] * 8})
    fields = {"positions": np.arange(8), "image_ids": np.arange(8), "valid": np.ones(8, bool)}
    return tf.data.Dataset.from_tensor_slices(inputs | fields).batch(4)


def test_predict_starts_a_data_set_once(tiny_model, batches, monkeypatch):
    started, steps = [], []
    start = tf.data.Dataset.__iter__
    monkeypatch.setattr(tf.data.Dataset, "__iter__", lambda data: started.append(1) or start(data))

    class Notes(tf.keras.callbacks.Callback):
        def on_predict_end(self, logs=None):
            steps.append(self.params["steps"])

    outputs = tiny_model.predict(batches, callbacks=[Notes()], verbose=0)
    assert outputs["positions"].tolist() == list(range(8))
    assert (len(started), steps) == (1, [2])


def test_one_of_several_workers_traces_a_model_once(tiny_model, batches, monkeypatch):
    records = [make_record(b"%d" % row, "a red ring", "k") for row in range(8)]
    images = batches.map(lambda batch: {n: batch[n] for n in ("images", "positions", "valid")})
    monkeypatch.setattr(held_out, "evaluation_images", lambda *_: images)
    monkeypatch.setattr(held_out.HeldOutPairs, "_read", lambda _: iter(records))
    monkeypatch.setattr(held_out.distribution, "worker_place", lambda _: (0, 2))
    traced, step = [], tiny_model.predict_step
    monkeypatch.setattr(tiny_model, "predict_step", lambda data: traced.append(1) or step(data))
    pairs = held_out.HeldOutPairs({"a": 8}, tiny_model.preprocessor, batch_size=4)
    first, second = (pairs.embed(tiny_model) for _ in range(2))
    assert traced == [1]
    assert first["rows"].tolist() == list(range(8))
    np.testing.assert_array_equal(first["image_embeddings"], second["image_embeddings"])
