"""Checkpoint files: allowed content and the meaning of each setting."""

import json

import pytest
from checkpoints import change

from align_keras import (
    AlignDualEncoder,
    AlignPreprocessor,
)
from align_keras.errors import InputError, MissingInputError
from align_keras.models.conversion import config as configs


def test_without_tokenizer_json_the_vocabulary_file_is_read(exported, checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    change(checkpoint / "tokenizer_config.json", do_lower_case=False)
    preprocessor = AlignPreprocessor.from_preset(checkpoint)
    assert preprocessor.vocabulary == exported[1].preprocessor.vocabulary
    assert not preprocessor.lowercase


def test_the_tokenizers_settings_rule_its_file(checkpoint):
    change(checkpoint / "tokenizer_config.json", do_lower_case=False, strip_accents=True)
    preprocessor = AlignPreprocessor.from_preset(checkpoint)
    assert (preprocessor.lowercase, preprocessor.strip_accents) == (False, True)
    (checkpoint / "tokenizer_config.json").unlink()
    preprocessor = AlignPreprocessor.from_preset(checkpoint)
    assert (preprocessor.lowercase, preprocessor.strip_accents) == (True, None)


def test_captions_are_no_longer_than_the_positions(checkpoint):
    change(checkpoint / "tokenizer_config.json", model_max_length=512)
    change(checkpoint / "preprocessor_config.json", align_keras={})
    assert AlignPreprocessor.from_preset(checkpoint).sequence_length == 12
    change(checkpoint / "config.json", text_config__max_position_embeddings=512)
    assert AlignPreprocessor.from_preset(checkpoint).sequence_length == 64


def test_transformers_5_keeps_the_image_processor_in_the_processors_file(exported, checkpoint):
    file = checkpoint / "preprocessor_config.json"
    content = json.loads(file.read_text())
    file.unlink()
    whole = {"processor_class": "AlignProcessor", "image_processor": content}
    (checkpoint / "processor_config.json").write_text(json.dumps(whole))
    # The default name would contain Keras's counter.
    expected = exported[1].preprocessor.get_config() | {"name": "loaded"}
    assert AlignPreprocessor.from_preset(checkpoint, name="loaded").get_config() == expected
    # If both files exist, transformers reads this one.
    file.write_text(json.dumps({**content, "crop_size": {"height": 9, "width": 9}}))
    assert AlignPreprocessor.from_preset(checkpoint, name="loaded").get_config() == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"vocabulary": "/etc/passwd"},
        {"antialias": "no"},
        {"sequence_length": True},
        {"name": "x"},
        ["antialias"],
    ],
)
def test_own_settings_of_a_checkpoint_are_those_that_are_written(settings, checkpoint):
    change(checkpoint / "preprocessor_config.json", align_keras=settings)
    with pytest.raises(
        InputError, match="supported: antialias, sequence_length, upright"
    ) as caught:
        AlignPreprocessor.from_preset(checkpoint)
    assert caught.value.place.member == "preprocessor_config.json"


def test_missing_values_of_a_configuration_are_those_of_the_original():
    text, approximate = configs.text_arguments({})
    assert (text["num_layers"], text["hidden_dim"], text["vocabulary_size"]) == (12, 768, 30522)
    assert not approximate
    vision, momentum = configs.vision_arguments({})
    assert vision["stackwise_width_coefficients"] == [2.0] * 7
    assert momentum == 0.99


@pytest.mark.parametrize(
    ("file", "values", "column", "problem"),
    [
        ("config.json", {"text_config__hidden_act": "relu"}, "text_config.hidden_act", "'relu' is"),
        ("config.json", {"text_config__layer_norm_eps": 1e-5}, "text_config.layer_norm_eps", "1e-"),
        ("config.json", {"vision_config__pooling_type": "max"}, "vision_config.pooling_type", ""),
        ("config.json", {"vision_config__depthwise_padding": [3]}, "vision_config.depthwise_", ""),
        ("config.json", {"vision_config__strides": [1, 2]}, "vision_config.strides", "2 stages"),
        ("config.json", {"vision_config__squeeze_expansion_ratio": 2}, "vision_config.squeeze", ""),
        ("config.json", {"projection_dim": 99}, "projection_dim", "99, but the image tower is"),
        ("preprocessor_config.json", {"resample": 0}, "resample", "0 is not supported, only 2"),
        ("preprocessor_config.json", {"size": {"height": 3, "width": 4}}, "size", "be a square"),
        ("preprocessor_config.json", {"size": -5}, "size", "must be a square, not -5"),
        ("preprocessor_config.json", {"crop_size": 99}, "crop_size", "99 is more than 40, the"),
        (
            "preprocessor_config.json",
            {"rescale_factor": "/x"},
            "rescale_factor",
            "number, not '/x'",
        ),
        ("preprocessor_config.json", {"do_rescale": "no"}, "do_rescale", "'no' is not supported"),
        (
            "preprocessor_config.json",
            {"image_std": [0.5]},
            "image_std",
            "three numbers, one per",
        ),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, "image_std", "must not be 0"),
        (
            "preprocessor_config.json",
            {"align_keras__sequence_length": 13},
            "align_keras",
            "sequence_length is 13, but config.json has 12 positions",
        ),
        ("tokenizer.json", {"model__type": "BPE"}, "model.type", "'BPE' is not supported, only"),
        ("tokenizer.json", {"model__vocab__red": 9999}, "", "the ids of its vocabulary have a gap"),
        ("tokenizer_config.json", {"tokenize_chinese_chars": False}, "tokenize_chinese", "False"),
        ("tokenizer_config.json", {"model_max_length": "64"}, "model_max_length", "above 0, not"),
    ],
)
def test_what_is_not_supported_is_reported_by_its_place(file, values, column, problem, checkpoint):
    change(checkpoint / file, **values)
    with pytest.raises(InputError) as raised:
        AlignDualEncoder.from_preset(checkpoint)
    error = raised.value
    assert (error.place.file, error.place.member) == (str(checkpoint), file)
    assert error.place.column.startswith(column)
    assert bool(error.place.column) == bool(column)
    assert problem in error.problem
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"text_config__vocab_size": 999}, "word_embeddings.weight has the shape"),
        ({"text_config__num_hidden_layers": 3}, "no tensor text_model.encoder"),
    ],
)
def test_weights_that_do_not_fit_are_named(values, problem, checkpoint):
    change(checkpoint / "config.json", **values)
    with pytest.raises(InputError) as raised:
        AlignDualEncoder.from_preset(checkpoint)
    assert raised.value.place.file == str(checkpoint)
    assert problem in raised.value.problem


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json", "vocab.txt"])
def test_a_missing_file_is_named(name, checkpoint):
    (checkpoint / name).unlink()
    if name == "vocab.txt":
        (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(MissingInputError, match=name) as raised:
        AlignDualEncoder.from_preset(checkpoint)
    assert raised.value.place.file == str(checkpoint)


def test_broken_weights_are_one_clear_line(checkpoint):
    data = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError) as raised:
        AlignDualEncoder.from_preset(checkpoint)
    assert raised.value.place.file == str(checkpoint)
