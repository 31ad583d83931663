from short_runs import settings_of
from tfds_set import write_tfds_set

from align_keras.runs.pretraining import pretrain


def test_a_run_trains_on_a_tfds_set(tiny_preset, scene_shards, tmp_path):
    name = f"tfds:{write_tfds_set(tmp_path / 'tfds', scene_shards[0][:4])}"
    settings = settings_of(([name], scene_shards[1]), tmp_path / "run", steps=1, warmup_steps=0)
    assert pretrain(settings)["num_pairs"] == 30
    assert list((tmp_path / "run" / "data").glob("*.finished"))
