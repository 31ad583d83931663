"""The facts about runs on the cards of their models."""

from types import SimpleNamespace

import pytest
import tensorflow as tf
from experiments import CLASSIFICATION, PRETRAINING

from align_keras.data.mixing import Source
from align_keras.runs import cards, hardware
from align_keras.runs.command_line import command_line
from align_keras.runs.mixed_sources import TrainingSources

COUNTS = {"a/x-0.tfrecord": 600, "a/x-1.tfrecord": 600, "b/y-0.tfrecord": 300}
FOUND = {"i2t_recall_at_1": 0.25, "zero_shot_top_1": None, "num_pairs": 80, "num_classes": 0}
FOUND |= {"training_seconds": 61.4}


def of(data, **options):
    settings = PRETRAINING["quickstart"].replace(**options)
    return cards.of_pretraining(settings, data, FOUND, {"i2t_recall_at_1": 0.01}, "2 CPUs", "c")


def data_of(sources=None):
    pre = SimpleNamespace(vocabulary=["a"] * 300)
    sources = sources or TrainingSources(["all"], [sum(COUNTS.values())])
    return SimpleNamespace(counts=COUNTS, sources=sources, preprocessor=pre)


def test_sources_with_weights_have_their_pairs_and_shares():
    names = ["/home/me/a/*.tfrecord", "/home/me/b/*.tfrecord"]
    parts = Source(list(COUNTS)[:2], 1), Source(list(COUNTS)[2:], 3)
    mixed = data_of(TrainingSources(names, [1_200, 300], parts))
    origin = of(mixed, train_data="/home/me/a/*.tfrecord=1,/home/me/b/*.tfrecord=3", license="mit")
    assert origin.data == [
        "`a/*.tfrecord`: 1,200 pairs, 25.0% of each batch, 34.7 epochs",
        "`b/*.tfrecord`: 300 pairs, 75.0% of each batch, 416 epochs",
        "started from random weights",
        "300 word pieces, trained on the captions",
    ]
    assert origin.license == "mit"
    (figure,) = origin.figures
    assert (figure.title, figure.value, figure.chance) == ("image to text R@1", 0.25, 0.01)
    assert "1,300 steps of 128 pairs, 111 epochs; seed 0" in origin.training


def test_sampled_captions_are_named_with_their_images():
    images = SimpleNamespace(images=300, records=range(1_500))
    data = data_of(TrainingSources(["/d/a-*"], [300], groups=[images]))
    origin = of(data, train_data="/d/a-*", captions="sample")
    assert origin.data[0] == "`d/a-*`: 300 images with 1,500 captions in 3 shards"
    assert "an epoch has one caption of each image" in origin.training
    assert "1,300 steps of 128 pairs, 555 epochs; seed 0" in origin.training
    assert "2 CPUs; 61 s of training, without evaluations" in origin.training


def test_a_start_from_trained_weights_is_named_with_its_terms():
    given = {"train_data": "/d/a/*.tfrecord", "model": "hf://kakaobrain/align-base"}
    origin = of(data_of(), **given, freeze="image_encoder", ema_momentum=0.9)
    assert origin.data == [
        "`a/*.tfrecord`: 1,500 pairs in 3 shards",
        "started from `hf://kakaobrain/align-base`, whose licence terms apply as well",
    ]
    assert origin.base_models == ["kakaobrain/align-base"]
    assert "frozen: image_encoder" in origin.training
    assert of(data_of(), train_data="", eval_data="/d/e/v-*").held_out == (
        "80 held-out pairs of `e/v-*`"
    )


def test_a_classifier_has_classes_and_both_phases():
    settings = CLASSIFICATION["small_set"].replace(model="/x/runs/a", task="birds", data="d.csv")
    metrics = {"head": {"top_1": 0.5}, "full": {"top_1": 0.75, "mean_per_class": 0.7}}
    origin = cards.of_classification(settings, 90, 3, metrics, "2 CPUs")
    assert origin.data[0] == "`d.csv`: 90 training images, 3 classes"
    assert origin.data[1] == "started from `runs/a`, whose licence terms apply as well"
    assert origin.training[0] == "the head on the frozen tower: 300 steps, learning rate 0.1"
    assert [(own.value, own.chance) for own in origin.figures] == [
        (0.75, pytest.approx(1 / 3)),
        (0.7, None),
    ]


def test_folders_of_this_machine_are_left_out():
    assert cards.public("/home/me/data/a/*.tfrecord") == "`a/*.tfrecord`"
    assert cards.public("tfds:coco_captions/x/y") == "`tfds:coco_captions/x/y`"
    many = ",".join(f"/d/s-{number}" for number in range(9))
    assert cards.public(many).endswith("`d/s-5`, and 3 more")
    flags = ["/home/me/align/recipes/pretrain.py", "--train-data=/d/e/a/*.x=2,/d/e/b/*.x=1"]
    flags += ["--steps=5", "--prompts", "a {}", "--model=hf://a/b/c", "--workdir", "/r/s/t"]
    assert command_line(flags) == (
        "python recipes/pretrain.py '--train-data=a/*.x=2,b/*.x=1' --steps=5 --prompts 'a {}' "
        "--model=hf://a/b/c --workdir s/t"
    )


def test_the_machine_is_named():
    assert hardware.describe(tf.distribute.get_strategy()).endswith(" cores")
