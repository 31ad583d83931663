"""The settings of both kinds of runs: bounds, exclusions, and files of earlier versions."""

import json
from pathlib import Path

import experiments
import pytest

from align_keras.errors import InputError
from align_keras.runs.classification_settings import ClassificationSettings, Phase
from align_keras.runs.pretraining_settings import PretrainSettings

#: ``settings.json`` as written by versions whose settings were one class.
BEFORE = Path(__file__).parent / "settings_before"


def test_the_defaults_and_all_experiments_are_within_the_bounds():
    for settings in (PretrainSettings(), *experiments.PRETRAINING.values()):
        settings.check()
    for settings in (ClassificationSettings(), *experiments.CLASSIFICATION.values()):
        settings.check()


def read(name):
    return json.loads((BEFORE / name).read_text())


def test_pretraining_runs_of_before_resume(tmp_path):
    before = read("pretraining.json")
    settings = experiments.PRETRAINING["quickstart"].replace(
        steps=6, warmup_steps=1, log_every=2, checkpoint_every=3, workdir="elsewhere"
    )
    # The GELU that a run fills in; earlier versions had only this one.
    settings = settings.replace(text_gelu="tanh")
    settings.check_resumable(before, tmp_path)
    new = {"text_gelu", "max_skipped_share", "steps_per_execution", "profile", "space_to_batch"}
    new |= {"freeze", "frozen_statistics", "schedule", "cache_features", "captions"}
    new |= {"text_pooling", "top_convolution", "projection_dim"}
    new |= {"image_feature_dropout"}
    new |= {"license", "tracker", "experiment"}
    new |= {"image_rate_factor", "text_rate_factor", "layer_decay"}
    assert json.loads(settings.as_json()).keys() == before.keys() | new
    with pytest.raises(InputError, match=r"^steps: the run in .* began with 6, not 7"):
        settings.replace(steps=7).check_resumable(before, tmp_path)
    # Not the warm-up, whose default depends on the steps.
    with pytest.raises(InputError, match=r"^steps: the run in .* began with 6, not 7"):
        settings.replace(steps=7, warmup_steps=2).check_resumable(before, tmp_path)


def test_classification_runs_of_before_resume(tmp_path):
    before = read("classification.json")
    settings = experiments.CLASSIFICATION["small_set"].replace(
        model="runs/photos", task="photos", data="photos/labels.jsonl", log_every=1
    )
    settings.check_resumable(before, tmp_path)
    assert json.loads(settings.as_json()).keys() == before.keys() | {
        *("max_skipped_share", "license", "tracker", "experiment")
    }
    with pytest.raises(InputError, match=r"^full\.steps: the run in .* began with 600, not 5"):
        settings.replace(full=Phase(3e-3, steps=5, frozen_statistics=True)).check_resumable(
            before, tmp_path
        )


@pytest.mark.parametrize(
    ("options", "setting", "message"),
    [
        ({"train_data": "", "eval_data": "x"}, "eval_data", "needs training data; give train_data"),
        ({"model": "x"}, "model", "needs training data; give train_data"),
        (
            {"preset": "align_b99"},
            "preset",
            "unknown preset 'align_b99'; choose one of align_b3_mini",
        ),
        ({"prompts": ("a photo",)}, "prompts", "no {} for the class name"),
        ({"prompts": ()}, "prompts", "give one such as 'a photo of a {}'"),
        (
            {"warmup_steps": 1300},
            "warmup_steps",
            "1300 is not below 1300; lower .*, or raise steps",
        ),
        ({"steps": 0}, "steps", "0 is below 1; raise steps to 1 or more"),
        ({"batch_size": 0}, "batch_size", "0 is below 2; raise batch_size to 2 or more"),
        ({"resize_size": 63}, "resize_size", "63 is below 64; .*, or lower image_size"),
        ({"seed": -1}, "seed", "-1 is below 0"),
        ({"seed": 1 << 32}, "seed", "4294967296 is above 4294967295"),
        ({"label_smoothing": 5.0}, "label_smoothing", "5.0 is above 1.0"),
        ({"learning_rate": float("nan")}, "learning_rate", "nan is below 0"),
        ({"min_temperature": 0.0}, "min_temperature", "0.0 is not above 0"),
        (
            {"initial_temperature": 0.001},
            "initial_temperature",
            "0.001 is below 0.005; .*, or lower min_temperature",
        ),
        ({"loss_tile_rows": -1}, "loss_tile_rows", "-1 is below 0"),
        ({"ema_momentum": 1.0}, "ema_momentum", "1.0 is above 0.999999; lower"),
        (
            {"vocabulary": "v", "text_encoder": "x"},
            "vocabulary",
            "comes with its own; leave out vocabulary or text_encoder",
        ),
        (
            {"model": "x", "train_data": "x", "vocabulary": "v.txt"},
            "vocabulary",
            "comes with its own; leave out vocabulary or model",
        ),
        ({"model": "x", "train_data": "x", "image_encoder": "b0"}, "image_encoder", "its own"),
        ({"freeze": "image_encoder:0"}, "freeze", "no number of steps; give image_encoder:2000"),
        ({"freeze": "image_encoder:1300"}, "freeze", "ends after the last step, 1,300; give fe"),
        ({"layer_decay": 1.5}, "layer_decay", "1.5 is above 1"),
        (
            {"tracker": "wandb,comet"},
            "tracker",
            "unknown tracker 'comet'; choose one of tensorboard, mlfl",
        ),
        ({"license": "Apache 2"}, "license", "'Apache 2' is not a licence identifier; give one"),
        (
            {"freeze": "text_encoder,head"},
            "freeze",
            "unknown tower 'head'; choose one of image_encoder",
        ),
    ],
)
def test_a_wrong_pretraining_setting_is_named(options, setting, message):
    settings = experiments.PRETRAINING["quickstart"].replace(**options)
    with pytest.raises(InputError, match=message) as raised:
        settings.check()
    assert raised.value.setting == setting
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "setting", "message"),
    [
        ({"head": Phase(0.1)}, "head.steps", "0 steps and 0 epochs are given; set head"),
        ({"full": Phase(0.1, epochs=1, steps=1)}, "full.steps", "1 step and 1 epoch are given"),
        ({"full": Phase(0.1, epochs=-1)}, "full.epochs", "-1 is below 0"),
        ({"full": Phase(0.1, epochs=1, image_size=4)}, "full.image_size", "4 is below 8; raise"),
        ({"full": Phase(float("nan"), epochs=1)}, "full.learning_rate", "nan is below 0"),
        ({"min_crop_area": 0.0}, "min_crop_area", "0.0 is not above 0"),
        ({"eval_crop": 1.1}, "eval_crop", "1.1 is above 1"),
        ({"momentum": 1.0}, "momentum", "1.0 is not below 1"),
        ({"batch_size": 0}, "batch_size", "0 is below 1; raise batch_size to 1 or more"),
    ],
)
def test_a_wrong_classification_setting_is_named(options, setting, message):
    settings = experiments.CLASSIFICATION["small_set"].replace(**options)
    with pytest.raises(InputError, match=message) as raised:
        settings.check()
    assert raised.value.setting == setting
