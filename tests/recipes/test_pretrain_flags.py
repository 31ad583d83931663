"""The settings of the recipes: experiments, flags, and what is wrong with them in one line."""

import dataclasses

import pretrain
import pytest
from experiments import EXPERIMENTS, PretrainSettings
from run_data import with_sizes
from short_runs import run_recipe, settings_of

from align_keras.data import records
from align_keras.models import presets

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_data": "/none/*.tfrecord"}, "--train-data: no file matches '/none/"),
        ({"eval_data": "/none/*.tfrecord"}, "--eval-data: no file matches '/none/"),
        ({"train_data": ""}, "--eval-data without --train-data"),
        ({"batch_size": 121}, "--batch-size: 121 is more than the 120 pairs"),
        ({"strategy": "tpu"}, "--strategy=tpu: no TPU answers"),
        ({"vocabulary": "/none/vocab.txt"}, "--vocabulary: no file /none/vocab.txt"),
        ({"preset": "align_b99"}, "--preset: no 'align_b99'; choose one of align_b3_mini"),
        ({"prompts": ("a photo",)}, "--prompts: no {} for the class name"),
        ({"prompts": ()}, "--prompts: give at least one"),
        (
            {"warmup_steps": 9},
            "--warmup-steps: 9 is above 3; lower --warmup-steps to 3 or less, or raise --steps",
        ),
        ({"steps": 0}, "--(steps|warmup-steps): "),
        ({"batch_size": 0}, "--batch-size: 0 is below 2; raise --batch-size to 2 or more$"),
        ({"resize_size": 31}, "--resize-size: 31 is below 32; .*, or lower --image-size"),
        ({"seed": -1}, "--seed: -1 is below 0"),
        ({"seed": 1 << 32}, "--seed: 4294967296 is above 4294967295"),
        ({"label_smoothing": 5.0}, "--label-smoothing: 5.0 is above 1.0"),
        ({"learning_rate": float("nan")}, "--learning-rate: nan is below 0"),
        ({"initial_temperature": 0.001}, "--initial-temperature: 0.001 is below 0.005"),
        ({"zero_shot_data": "/none/*"}, "--zero-shot-data: no file matches"),
        ({"micro_batch_size": 7}, "--micro-batch-size: 7 does not divide the 40 pairs"),
        ({"loss_tile_rows": -1}, "--loss-tile-rows: -1 is below 0"),
    ],
)
def test_bad_settings_are_one_clear_line(options, message, scene_shards, tmp_path):
    settings = settings_of(scene_shards, tmp_path / "run", **options)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        pretrain.main(settings)
    assert "\n" not in str(raised.value)
    # The mended command is not refused as another run's.
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_workdir_that_is_no_directory_is_refused(scene_shards, tmp_path):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="--workdir: .*/file is a file; give a directory"):
            pretrain.main(settings_of(scene_shards, workdir))


def test_zero_shot_data_without_classes_are_refused(scene_shards, tmp_path):
    with records.ShardWriter(str(tmp_path / "plain"), 100) as writer:
        pair = records.parse_pair(next(records.read_frames(scene_shards[0][0])))
        writer.write(records.make_record(pair["jpg"], "a caption", "k"))
    settings = settings_of(scene_shards, tmp_path / "run", zero_shot_data=writer.shards[0])
    message = "--zero-shot-data: its records have no two values of class_name; "
    with pytest.raises(ValueError, match=message):
        pretrain.main(settings)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_flags_override_the_experiment():
    flags = ["--batch-size=32", "--experiment=cc3m_b3_mini", "--no-mask-false-negatives"]
    settings = pretrain.parse_settings([*flags, "--train-data=x"])
    expected = dataclasses.replace(
        EXPERIMENTS["cc3m_b3_mini"], batch_size=32, mask_false_negatives=False, train_data="x"
    )
    assert settings == expected
    assert pretrain.parse_settings(["--experiment", "quickstart"]) == EXPERIMENTS["quickstart"]
    with pytest.raises(ValueError, match="--experiment: no 'b99'; choose one of quickstart"):
        pretrain.parse_settings(["--experiment=b99"])
    with pytest.raises(ValueError, match="--experiment=cc3m_b3_mini: give --train-data; only"):
        pretrain.parse_settings(flags)


def test_experiments_name_presets_and_keep_the_papers_constants():
    sizes = presets.PRESETS.keys() - {"tiny"}
    assert {settings.preset for settings in EXPERIMENTS.values()} == sizes
    assert EXPERIMENTS["align_l2_large"] == PretrainSettings(preset="align_l2_large")
    paper = with_sizes(EXPERIMENTS["align_l2_large"])
    facts = {
        "optimizer": "lamb",
        "learning_rate": 1e-3,
        "weight_decay": 1e-5,
        "warmup_steps": 10_000,
        "steps": 1_200_000,
        "batch_size": 16_384,
        "label_smoothing": 0.1,
        "initial_temperature": 1.0,
        "resize_size": 346,
        "image_size": 289,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    }
    assert {name: getattr(paper, name) for name in facts} == facts


@pytest.mark.parametrize("recipe", ["pretrain.py", "prepare_data.py"])
def test_help_explains_the_flags(recipe):
    result = run_recipe(recipe, "--help")
    assert result.returncode == 0
    flags = {"pretrain.py": ["--batch-size", "--strategy"], "prepare_data.py": ["--captions"]}
    for flag in flags[recipe]:
        assert flag in result.stdout


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        (
            "pretrain.py",
            ["--train-data=/none/x-*"],
            "pretrain.py: --train-data: no file matches",
        ),
        (
            "prepare_data.py",
            ["--captions=/none/x.csv", "--output=/none/y"],
            "prepare_data.py: --captions: no file /none/x.csv",
        ),
    ],
)
def test_bad_input_ends_without_a_stack_trace(recipe, arguments, message, tmp_path):
    result = run_recipe(recipe, *arguments)
    assert result.returncode == 1
    # Nothing of TensorFlow's stands around it either.
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(message)


def test_exclusions_and_averages_are_checked_before_a_run(scene_shards, tmp_path):
    for options, message in (
        ({"exclude_from_decay": ("embedd",), "optimizer": "sgd"}, None),
        ({"exclude_from_adaptation": ("x",), "optimizer": "sgd"}, "sgd has no layer adaptation"),
        ({"exclude_from_decay": ("nothing",)}, "'nothing' matches the path of no variable"),
        ({"ema_momentum": 1.0}, "--ema-momentum: 1.0 is above 0.999999; lower"),
    ):
        settings = settings_of(scene_shards, tmp_path / "run", **options)
        if message is None:
            settings.check()
            continue
        with pytest.raises(ValueError, match=message):
            pretrain.main(settings)
    assert not (tmp_path / "run" / "settings.json").exists()
