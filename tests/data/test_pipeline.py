import collections
import io
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from malformed import crashing
from PIL import Image

from align_keras.data import batches, pipeline, records
from align_keras.data.shard_writer import write_shard
from align_keras.errors import InputError, Place


def take(dataset, count):
    return [{name: value.numpy() for name, value in batch.items()} for batch in dataset.take(count)]


def assert_same(found, others):
    assert len(found) == len(others)
    for batch, other in zip(found, others, strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def dataset_of(shards, preprocessor, batch_size=24, **options):
    options = {"seed": 3, "shuffle_buffer": 50, **options}
    counts = pipeline.shard_counts(shards)
    return pipeline.training_dataset(counts, preprocessor, batch_size, **options)


class QuickPreprocessor:
    """A preprocessor that is traced quickly, since most of these tests check only the order."""

    image_size = 4

    def decode_centre_crop(self, image):
        return tf.cast(tf.image.resize(tf.io.decode_jpeg(image, channels=3), [4, 4]), tf.uint8)

    def decode_random_crop(self, image, seed):
        crop = tf.cast(self.decode_centre_crop(image), tf.float32)
        return tf.cast(crop * tf.random.stateless_uniform([], seed), tf.uint8)

    def tokenize(self, captions):
        letters = tf.strings.unicode_decode(captions, "UTF-8")
        return {"token_ids": letters.to_tensor(shape=[None, 60])}


@pytest.fixture(scope="module")
def quick():
    return QuickPreprocessor()


@pytest.fixture(scope="module")
def first_batches(scene_shards, quick):
    """Two epochs of five batches."""
    return take(dataset_of(scene_shards[0], quick), 10)


def test_batches_are_static_and_complete(scene_shards, preprocessor):
    dataset = dataset_of(scene_shards[0], preprocessor)
    shapes = {name: tuple(spec.shape) for name, spec in dataset.element_spec.items()}
    assert shapes == {
        "pixels": (24, 16, 16, 3),
        "token_ids": (24, 12),
        "segment_ids": (24, 12),
        "padding_mask": (24, 12),
        "image_ids": (24,),
        "caption_ids": (24,),
        "lost": (24,),
    }
    found = take(dataset, 1)
    assert found[0]["pixels"].dtype == np.uint8
    assert np.ptp(found[0]["pixels"]) > 100
    tf.random.set_seed(5)
    assert_same(found, take(dataset_of(scene_shards[0], preprocessor), 1))


def test_an_epoch_holds_every_pair_once_and_the_next_another_order(first_batches):
    ids = np.concatenate([batch["image_ids"] for batch in first_batches])
    first, second = ids[:120], ids[120:]
    assert len(set(first)) == 120
    assert set(first) == set(second)
    assert (first != second).any()


def test_order_and_augmentation_follow_from_the_seed_alone(scene_shards, quick, first_batches):
    tf.random.set_seed(5)
    assert_same(first_batches[:3], take(dataset_of(scene_shards[0], quick), 3))
    (other,) = take(dataset_of(scene_shards[0], quick, seed=4), 1)
    assert (first_batches[0]["image_ids"] != other["image_ids"]).any()


@pytest.mark.parametrize("start", [2, 7])
def test_a_later_start_gives_the_batches_that_would_have_come(
    start, scene_shards, quick, first_batches
):
    resumed = take(dataset_of(scene_shards[0], quick, start_batch=start), 3)
    assert_same(first_batches[start : start + 3], resumed)


@pytest.mark.parametrize("num_workers", [2, 4])
def test_workers_share_the_pairs_between_them(num_workers, scene_shards, quick):
    size = 20 // num_workers
    seen = collections.Counter()
    for worker in range(num_workers):
        dataset = dataset_of(
            scene_shards[0][:2], quick, size, worker=worker, num_workers=num_workers
        )
        seen.update(take(dataset, 1)[0]["image_ids"].tolist())
    assert len(seen) == 20
    assert set(seen.values()) == {1}


def test_more_pairs_a_batch_than_data_are_refused(scene_shards, quick):
    with pytest.raises(InputError, match="a batch of 121 pairs is more than the 120"):
        dataset_of(scene_shards[0], quick, 121)


@pytest.fixture
def damaged(scene_shards, tmp_path):
    """A copy of a shard: record 2 has a flipped bit, 5 has no image, and 7 is truncated."""
    source = list(records.read_frames(scene_shards[0][0]))
    path = tmp_path / "damaged.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index, record in enumerate(source):
            fields = records.parse_pair(record)
            jpg = {5: b"no image", 7: fields["jpg"][:300]}.get(index, fields["jpg"])
            writer.write(records.make_record(jpg, fields["txt"], "k", image_id=fields["image_id"]))
    data = bytearray(path.read_bytes())
    lengths = [len(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    data[sum(lengths[:2]) + 2 * 16 + 50] ^= 1
    path.write_bytes(data)
    return str(path)


def lost_of(batch):
    """The number of pairs lost from a batch, by the numbers of their shards."""
    return collections.Counter((batch["lost"][batch["lost"] > 0] - 1).tolist())


def test_corrupt_pairs_are_counted_and_the_rest_is_kept(damaged, preprocessor):
    (batch,) = take(dataset_of([damaged], preprocessor, 10), 1)
    counts = collections.Counter(batch["image_ids"].tolist())
    assert len(counts) == 7
    assert sorted(counts.values()) == [1] * 4 + [2] * 3
    assert np.ptp(batch["pixels"].reshape(10, -1), axis=1).min() > 0
    assert lost_of(batch) == {0: 3}


def test_a_record_on_which_tensorflows_parser_crashes_is_a_skipped_pair(
    scene_shards, quick, tmp_path
):
    """The parser dies of SIGSEGV, as ``tests/faults/test_damaged_records.py`` shows."""
    path = str(tmp_path / "malformed.tfrecord")
    frames = list(records.read_frames(scene_shards[0][0]))
    write_shard(path, [*frames[:9], crashing(frames[9])])
    (batch,) = take(dataset_of([path], quick, 10), 1)
    assert len(set(batch["image_ids"].tolist())) == 9
    assert lost_of(batch) == {0: 1}
    (batch,) = take(pipeline.evaluation_dataset(pipeline.shard_counts([path]), quick, 10), 1)
    assert batch["valid"].tolist() == [True] * 9 + [False]


def test_a_shard_that_is_gone_costs_its_pairs_and_one_that_has_changed_is_found(
    scene_shards, quick, tmp_path
):
    for shard in scene_shards[0][:3]:
        shutil.copy(shard, tmp_path)
    first, second, third = shards = records.find_shards(f"{tmp_path}/*.tfrecord")
    counts = pipeline.shard_counts(shards)
    shutil.copy(scene_shards[0][5], first)
    pathlib.Path(second).unlink()
    os.utime(third)  # as if a copy with the same records had been put back
    (batch,) = take(pipeline.training_dataset(counts, quick, 30), 1)
    assert lost_of(batch)[1] == 10
    assert lost_of(batch)[2] == 0
    changes = counts.watched.look()
    assert changes.keys() == {first, second}
    assert changes[second] == "is gone"
    with pytest.raises(InputError, match="since the run opened it") as raised:
        counts.watched.check()
    assert raised.value.place == Place(first)


def test_corrupt_pairs_do_not_move_the_batches_after(damaged, scene_shards, quick):
    shards = [damaged, *scene_shards[0][1:]]
    found = take(dataset_of(shards, quick), 6)
    assert_same(found[4:], take(dataset_of(shards, quick, start_batch=4), 2))


def test_a_batch_without_any_readable_pair_raises(tmp_path, quick):
    path = str(tmp_path / "bad.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for _ in range(4):
            writer.write(records.make_record(b"no image", "a caption", "k"))
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        take(dataset_of([path], quick, 4), 1)
    assert batches.files_of_unreadable_batch(raised.value) == [1]


def test_evaluation_keeps_the_order_and_marks_what_is_not_valid(damaged, preprocessor):
    dataset = pipeline.evaluation_dataset(pipeline.shard_counts([damaged]), preprocessor, 4)
    found = take(dataset, 9)
    assert len(found) == 3
    valid = np.concatenate([batch["valid"] for batch in found])
    positions = np.concatenate([batch["positions"] for batch in found])
    assert positions[valid].tolist() == [0, 1, 3, 4, 6, 8, 9]
    images = np.concatenate([batch["pixels"] for batch in found])[valid]
    source = list(records.read_frames(damaged))
    for image, position in zip(images, positions[valid], strict=True):
        jpg = records.parse_pair(source[position])["jpg"]
        np.testing.assert_array_equal(image, preprocessor.decode_centre_crop(jpg))


def test_gzip_and_unknown_fields_are_read(tmp_path, quick):
    image = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(image, "JPEG")
    path = str(tmp_path / "x.tfrecord.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for key in "abcd":
            fields = {"url": "http://x", "similarity": 0.3, "NSFW": 1}
            writer.write(records.make_record(image.getvalue(), "a red wall", key, **fields))
    (batch,) = take(dataset_of([path], quick, 4), 1)
    assert batch["image_ids"].tolist() == [0, 0, 0, 0]
    assert len(set(batch["caption_ids"].tolist())) == 1


def write_pairs(path, scene_shards, pairs):
    """Writes ten scenes of one shard with the given captions and image ids."""
    with tf.io.TFRecordWriter(path) as writer:
        frames = records.read_frames(scene_shards[0][0])
        for frame, (caption, fields) in zip(frames, pairs, strict=True):
            jpg = records.parse_pair(frame)["jpg"]
            writer.write(records.make_record(jpg, caption, "k", **fields))


def test_image_ids_of_every_type_serve_in_one_shard(scene_shards, quick, tmp_path):
    path = str(tmp_path / "mixed.tfrecord")
    ids = [{}, {"image_id": 7}, {"image_id": 7}, {"image_id": "a"}, {"image_id": "a"}]
    ids += [{"image_id": 0}, {"image_id": -1}, {"image_id": 1.5}, {"image_id": "7"}]
    ids += [{"image_id": ""}]
    pairs = [(f"caption {index}", fields) for index, fields in enumerate(ids)]
    write_pairs(path, scene_shards, pairs)
    counts = pipeline.shard_counts([path])
    assert not lost_of(take(dataset_of([path], quick, 10), 1)[0])
    (batch,) = take(pipeline.evaluation_dataset(counts, quick, 10), 1)
    assert batch["valid"].all()
    groups = batch["image_ids"].tolist()
    assert [groups[index] for index in (0, 7, 9)] == [0, 0, 0]
    assert groups[1] == groups[2] == groups[8]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 5
    assert min(groups) == 0


def test_captions_of_the_same_word_pieces_share_an_id(scene_shards, preprocessor, tmp_path):
    path = str(tmp_path / "alike.tfrecord")
    alike = ["a red circle", " A  Red\u00a0circle ", "a re\u0301d circle", "a r\u200bed circle"]
    captions = [*alike, "a red circle.", "red circle a", *(f"circle {n}" for n in "1234")]
    write_pairs(path, scene_shards, [(caption, {}) for caption in captions])
    dataset = pipeline.evaluation_dataset(pipeline.shard_counts([path]), preprocessor, 10)
    (batch,) = take(dataset, 1)
    ids = batch["caption_ids"].tolist()
    assert len(set(ids[:4])) == 1
    assert len(set(ids)) == len({tuple(row) for row in batch["token_ids"].tolist()}) >= 3
    assert min(ids) > 0


def test_empty_captions_are_skipped_and_counted(scene_shards, quick, tmp_path):
    path = str(tmp_path / "empty.tfrecord")
    captions = ["", " \t\n", "\u3000\u200b\u0301"] + [f"{'a ' * index} b" for index in range(7)]
    write_pairs(path, scene_shards, [(caption, {}) for caption in captions])
    counts = pipeline.shard_counts([path])
    (batch,) = take(pipeline.training_dataset(counts, quick, 10), 1)
    assert len(set(batch["caption_ids"].tolist())) == 7
    assert lost_of(batch) == {0: 3}
    (batch,) = take(pipeline.evaluation_dataset(counts, quick, 10), 1)
    assert batch["valid"].tolist() == [False] * 3 + [True] * 7


def test_data_survives_being_moved(scene_shards, quick, first_batches, tmp_path):
    # The order depends only on the shards' names within their folder.
    for shard in scene_shards[0]:
        shutil.copy(shard, tmp_path)
    moved = records.find_shards(f"{tmp_path}/*.tfrecord")
    assert_same(first_batches[:2], take(dataset_of(moved, quick), 2))


def test_static_shapes_survive_a_batch_that_chunks_unevenly(scene_shards, quick):
    (batch,) = take(dataset_of(scene_shards[0], quick, 74), 1)
    assert batch["pixels"].shape == (74, 4, 4, 3)
    assert len(set(batch["image_ids"].tolist())) == 74
