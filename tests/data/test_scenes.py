import io

import numpy as np
from PIL import Image

from align_keras.data import records, scenes


def pairs_of(shards):
    return [records.parse_pair(record) for shard in shards for record in records.read_frames(shard)]


def test_unseen_combinations_never_appear_in_training(scene_shards):
    train, held_out = (pairs_of(shards) for shards in scene_shards)
    unseen = {" ".join(combination).encode() for combination in scenes.UNSEEN}
    assert len(unseen) == 8
    assert not unseen & {pair["class_name"] for pair in train}
    for pair in train:
        assert not any(words in pair["txt"].lower() for words in unseen)
    marked = {pair["class_name"]: pair["unseen_class"] for pair in held_out}
    assert {name in unseen for name in marked} == {True, False}
    assert all((name in unseen) == bool(mark) for name, mark in marked.items())


def test_scenes_follow_from_their_seed(tmp_path):
    written = [
        pairs_of(records.find_shards(scenes.write_scenes(tmp_path / name, 5, 2, seed)[0]))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert written[0] == written[1] != written[2]


def test_captions_are_noisy_in_training_and_true_in_evaluation(tmp_path):
    patterns = scenes.write_scenes(tmp_path, 400, 100)
    train, held_out = (pairs_of(records.find_shards(pattern)) for pattern in patterns)

    def true_share(pairs):
        def tells(pair):
            words = pair["class_name"].decode().split()
            return all(word in pair["txt"].decode().lower() for word in words)

        return np.mean([tells(pair) for pair in pairs])

    assert true_share(held_out) == 1.0
    assert 0.8 < true_share(train) < 0.97


def test_a_scene_shows_its_colour(scene_shards):
    shown = 0
    for pair in pairs_of(scene_shards[1]):
        colour = pair["class_name"].decode().split()[0]
        pixels = np.asarray(Image.open(io.BytesIO(pair["jpg"])), float)
        distance = np.abs(pixels - scenes.COLOURS[colour]).max(axis=-1)
        shown += (distance < 50).sum() > 60
    assert shown == 30
