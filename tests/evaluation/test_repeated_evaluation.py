"""What evaluations during a run must not do again each time."""

import numpy as np
import tensorflow as tf
from conftest import make_batch

from align_keras.data.pipeline import shard_counts
from align_keras.evaluation import held_out


def test_predict_starts_a_data_set_once(tiny_model, monkeypatch):
    names = ("images", "token_ids", "segment_ids", "padding_mask")
    inputs = {name: value for name, value in make_batch().items() if name in names}
    dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
    started, steps = [], []
    start = tf.data.Dataset.__iter__
    monkeypatch.setattr(tf.data.Dataset, "__iter__", lambda data: started.append(1) or start(data))

    class Notes(tf.keras.callbacks.Callback):
        def on_predict_end(self, logs=None):
            steps.append(self.params["steps"])

    outputs = tiny_model.predict(dataset, callbacks=[Notes()], verbose=0)
    assert len(outputs["text_embeddings"]) == 8
    assert (len(started), steps) == (1, [2])


def test_one_of_several_workers_traces_a_model_once(
    tiny_model, scene_shards, preprocessor, monkeypatch
):
    pairs = held_out.HeldOutPairs(shard_counts(scene_shards[1][:1]), preprocessor, batch_size=5)
    monkeypatch.setattr(held_out.distribution, "worker_place", lambda _: (0, 2))
    traced, step = [], tiny_model.predict_step
    monkeypatch.setattr(tiny_model, "predict_step", lambda data: traced.append(1) or step(data))
    first, second = (pairs.embed(tiny_model) for _ in range(2))
    assert traced == [1]
    assert len(first["rows"]) == 10
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
