import numpy as np
from short_runs import settings_of
from tfds_set import write_tfds_set

from align_keras.runs.pretraining import open_run
from align_keras.runs.pretraining_batches import training_data


def test_a_run_trains_on_a_tfds_set(tiny_preset, scene_shards, tmp_path):
    """Only the batches are tested, since the training step is the same as in other runs."""
    name = f"tfds:{write_tfds_set(tmp_path / 'tfds', scene_shards[0][:4])}"
    run = open_run(settings_of(([name], scene_shards[1]), tmp_path / "run"))
    assert list((tmp_path / "run" / "data").glob("*.finished"))
    # Forty images have two captions each.
    assert sum(run.data.counts.values()) == 80
    batch = next(iter(training_data(run.settings, run.data, run.strategy, 0)))
    assert batch["pixels"].shape == (40, 32, 32, 3)
    assert np.all(batch["image_ids"].numpy() > 0)
    assert not batch["lost"].numpy().any()
