"""Runs that compute the features of frozen towers once, before training."""

import shutil

import numpy as np
import pytest
from short_runs import settings_of

from align_keras.data import pipeline
from align_keras.errors import InputError
from align_keras.runs import feature_cache
from align_keras.runs.presets import load_model
from align_keras.runs.pretraining import pretrain

pytestmark = pytest.mark.usefixtures("tiny_preset")
OPTIONS = {"freeze": "image_encoder,text_encoder", "cache_features": 2}


@pytest.fixture(scope="module")
def finished(tiny_preset, scene_shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("cached") / "run"
    pretrain(settings_of(scene_shards, workdir, **OPTIONS))
    return workdir


def arrays_of(workdir):
    return {path.stem: np.load(path) for path in (workdir / "features").glob("*.npy")}


def test_the_features_are_the_towers_own(finished, scene_shards):
    arrays, model = arrays_of(finished), load_model(str(finished))
    counts = pipeline.shard_counts(scene_shards[0])
    dataset = pipeline.evaluation_dataset(counts, model.preprocessor, 120)
    (batch,) = dataset.as_numpy_iterator()
    images = model.backbone.image_encoder(model.preprocessor.scale(batch["pixels"]))
    texts = model.backbone.text_encoder(
        {name: batch[name] for name in model.backbone.text_encoder.input}
    )
    rows = arrays["images"]
    np.testing.assert_array_equal(np.unique(rows), np.arange(len(arrays["image_features"])))
    found = arrays["image_features"][rows]
    np.testing.assert_allclose(found[:, 0], images, rtol=1e-4, atol=1e-5)
    assert np.abs(found[:, 1] - images).max() > 1e-3  # view 2 is a random crop
    np.testing.assert_allclose(arrays["text_features"], texts, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(arrays["image_ids"], batch["image_ids"])


def test_a_run_resumes_with_the_features_and_computes_damaged_ones_again(
    finished, scene_shards, tmp_path, monkeypatch, capsys
):
    workdir = shutil.copytree(finished, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (workdir / "features").iterdir()}
    for path in workdir.glob("checkpoints/newest/ckpt-[34].*"):
        path.unlink()
    (workdir / "checkpoints" / "newest" / "checkpoint").unlink()
    shutil.rmtree(workdir / "checkpoints" / "best")
    path = workdir / "features" / "image_features.npy"
    path.write_bytes(path.read_bytes()[:-5])
    assert pretrain(settings_of(scene_shards, workdir, **OPTIONS))["resumed_at_step"] == 2
    assert "image_features.npy" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in (workdir / "features").iterdir()}
    weights = load_model(str(finished)).get_weights(), load_model(str(workdir)).get_weights()
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)

    # Features of another data set are not used.
    assert feature_cache._read(workdir / "features", 119, 2) is None
    assert "120 records and 2 views, not 119 and 2" in capsys.readouterr().err

    shutil.rmtree(workdir / "preset")
    monkeypatch.setattr(feature_cache, "_compute", None)
    for path in workdir.glob("checkpoints/newest/ckpt-4.*"):
        path.unlink()
    pretrain(settings_of(scene_shards, workdir, **OPTIONS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": "text_encoder"}, "the image tower is not frozen in all steps; give freeze"),
        ({"freeze": "image_encoder:2"}, "the image tower is not frozen in all steps"),
        ({"freeze": "image_encoder", "train_data": "a/*=2,b/*=1"}, "sources with weights"),
    ],
)
def test_features_that_may_change_are_not_cached(options, message, scene_shards, tmp_path):
    settings = settings_of(scene_shards, tmp_path, cache_features=1, **options)
    with pytest.raises(InputError, match=message) as error:
        settings.check()
    assert error.value.setting == "cache_features"
