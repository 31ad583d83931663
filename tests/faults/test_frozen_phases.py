"""A run whose towers are frozen for its first steps."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from short_runs import settings_of

from align_keras.runs.presets import load_model
from align_keras.runs.pretraining import pretrain

pytestmark = pytest.mark.faults


def weights(workdir, step):
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / "newest" / f"ckpt-{step}"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        # Clocks differ between runs, and the object graph is text.
        if not name.startswith(("seconds", "timed_pairs", "_CHECKPOINTABLE", "save_counter"))
    }


@pytest.mark.usefixtures("tiny_preset")
def test_a_run_resumes_exactly_across_a_phases_end(scene_shards, tmp_path):
    options = {
        "freeze": "image_encoder:3,text_encoder",
        "layer_decay": 0.5,
        "ema_momentum": 0.9,
        "schedule": "cosine",
    }
    whole, other = tmp_path / "whole", tmp_path / "other"
    pretrain(settings_of(scene_shards, whole, **options))
    steps = {step: weights(whole, step) for step in (2, 3, 4)}

    def moved(first, last, part):
        names = [n for n in steps[4] if n.startswith("model/") and part in n]
        assert names
        return any(np.any(steps[first][name] != steps[last][name]) for name in names)

    assert not moved(2, 3, "image_encoder")
    assert moved(3, 4, "image_encoder")
    assert not moved(2, 4, "text_encoder")
    assert moved(2, 3, "log_temperature")

    shutil.copytree(whole, other)
    for path in (*other.glob("checkpoints/newest/ckpt-[34].*"), other / "metrics.json"):
        path.unlink()
    shutil.rmtree(other / "checkpoints" / "best")
    assert pretrain(settings_of(scene_shards, other, **options))["resumed_at_step"] == 2
    for name, value in steps[4].items():
        np.testing.assert_array_equal(weights(other, 4)[name], value, name)
    # The saved model has no frozen towers, so the next run trains them.
    backbone = load_model(str(whole)).backbone
    assert backbone.text_encoder.trainable
