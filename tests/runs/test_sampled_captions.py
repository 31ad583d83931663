"""Runs that use one caption of each image per epoch, also with several sources."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from short_runs import settings_of

from align_keras.data import records
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError
from align_keras.runs import pretraining_data
from align_keras.runs.log_lines import read_log
from align_keras.runs.presets import load_model
from align_keras.runs.pretraining import pretrain
from align_keras.runs.pretraining_batches import training_data

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.fixture(scope="module")
def sources(scene_shards, tmp_path_factory):
    """Two sources, of 24 and 16 images with three captions each: 72 and 48 records."""
    folder = tmp_path_factory.mktemp("captioned")
    frames = [frame for shard in scene_shards[0] for frame in records.read_frames(shard)]
    pairs = [records.parse_pair(frame) for frame in frames[:40]]
    for name, own in (("a", pairs[:24]), ("b", pairs[24:])):
        with ShardWriter(str(folder / name), 30) as writer:
            for number in range(3):
                for row, pair in enumerate(own):
                    text = pair["txt"].decode() + " again" * number
                    key = f"{name}{row}"
                    writer.write(records.make_record(pair["jpg"], text, key, image_id=key))
    return f"{folder}/a-*.tfrecord=2,{folder}/b-*.tfrecord=1"


def options_of(sources, **options):
    return {"train_data": sources, "captions": "sample", "batch_size": 12, **options}


@pytest.fixture(scope="module")
def finished(tiny_preset, scene_shards, sources, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sampled") / "run"
    return workdir, pretrain(settings_of(scene_shards, workdir, **options_of(sources)))


def test_pairs_and_epochs_of_each_source_are_counted(finished, sources):
    workdir, metrics = finished
    lines = [line for line in read_log(workdir) if line["kind"] == "train"]
    assert [line["source_1_pairs"] for line in lines] == [8, 16, 24, 32]
    assert [line["source_2_pairs"] for line in lines] == [4, 8, 12, 16]
    assert lines[2]["source_1_epochs"] == 1.0  # an epoch has 24 images
    assert lines[3]["source_2_epochs"] == 1.0
    first, second = (part.rpartition("=")[0] for part in sources.split(","))
    assert metrics["sources"] == [
        {"name": first, "pairs": 32, "epochs": 32 / 24},
        {"name": second, "pairs": 16, "epochs": 1.0},
    ]


def test_a_run_of_sampled_captions_resumes_to_the_same_weights(
    finished, scene_shards, sources, tmp_path, capsys
):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    for path in workdir.glob("checkpoints/newest/ckpt-[34].*"):
        path.unlink()
    (workdir / "checkpoints" / "newest" / "checkpoint").unlink()
    shutil.rmtree(workdir / "checkpoints" / "best")
    again = pretrain(settings_of(scene_shards, workdir, **options_of(sources)))
    assert again["resumed_at_step"] == 2
    weights = (load_model(str(run)).get_weights() for run in (finished[0], workdir))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    printed = capsys.readouterr().out
    assert "a-*.tfrecord: 24 images with 72 captions; an epoch has one caption of each" in printed
    assert "a-*.tfrecord: 32 pairs, 1.33 epochs\n" in printed
    assert "b-*.tfrecord: 16 pairs, 1 epoch\n" in printed
    with pytest.raises(InputError, match="began with 'sample', not 'all'") as raised:
        pretrain(settings_of(scene_shards, workdir, **options_of(sources, captions="all")))
    assert raised.value.setting == "captions"


def batches_of(settings, data, strategy, first_step, count, cached=None):
    """Batches as the replicas of a strategy get them, concatenated."""
    dataset = iter(training_data(settings, data, strategy, first_step, cached))
    found = []
    for batch in (next(dataset) for _ in range(count)):
        parts = {name: strategy.experimental_local_results(own) for name, own in batch.items()}
        found.append({name: np.concatenate(own) for name, own in parts.items()})
    return found


def test_replicas_share_the_batches_of_one_device(sources, scene_shards, mirrored, tmp_path):
    settings = settings_of(scene_shards, tmp_path / "run", eval_data="", **options_of(sources))
    sizes = pretraining_data.with_sizes(settings.data, "")
    data = pretraining_data.open_data(sizes, settings.model, tmp_path / "run", 12, seed=0)
    alone = batches_of(settings, data, tf.distribute.get_strategy(), 0, 6)
    for first in (0, 4):
        shared = batches_of(settings, data, mirrored, first, 2)
        for batch, other in zip(alone[first : first + 2], shared, strict=True):
            for name in ("image_ids", "caption_ids", "pixels"):
                np.testing.assert_array_equal(batch[name], other[name], name)
    # An epoch of the first source takes three batches, an epoch of the second takes four.
    ids = np.concatenate([batch["image_ids"] for batch in alone])
    assert len(set(ids[:48])) == 40
    captions = np.concatenate([batch["caption_ids"] for batch in alone])
    assert len(set(zip(ids, captions, strict=True))) > 60


def test_cached_features_get_the_images_too(scene_shards, sources, tmp_path):
    plain = sources.replace("=2", "").replace("=1", "")
    settings = settings_of(scene_shards, tmp_path, eval_data="", **options_of(plain))
    sizes = pretraining_data.with_sizes(settings.data, "")
    data = pretraining_data.open_data(sizes, settings.model, tmp_path / "run", 12, seed=0)
    given = {}
    cached = SimpleNamespace(batches=lambda _, **own: given.update(own) or tf.data.Dataset.range(1))
    training_data(settings, data, tf.distribute.get_strategy(), 0, cached)
    assert given["groups"] is data.sources.groups[0]
    assert data.sources.groups[0].images == data.sources.total == 40
    assert data.sources.metrics(10, 12) == {"epochs": 3.0}


def test_images_with_one_caption_each_cannot_be_sampled(scene_shards, tmp_path):
    with pytest.raises(InputError, match="no image has several captions") as raised:
        pretrain(settings_of(scene_shards, tmp_path / "run", captions="sample"))
    assert raised.value.setting == "captions"
