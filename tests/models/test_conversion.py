"""The Hugging Face layout, in and out, against outputs of the original implementation."""

import itertools
import json
import shutil
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from conftest import SHARED

from align_keras import (
    AlignBackbone,
    AlignDualEncoder,
    AlignPreprocessor,
    ImageEncoder,
    build_text_encoder,
)
from align_keras.models import efficientnet
from align_keras.models.conversion import config as configs
from align_keras.models.conversion import transformers
from align_keras.models.conversion.weights import Weight
from align_keras.models.text_encoder import TextEncoder
from align_keras.preprocessing import hugging_face

PARITY = SHARED / "parity"


def reference(name):
    """A reference checkpoint's folder, its expected arrays, captions and image files."""
    if not PARITY.exists():
        pytest.skip(f"no reference checkpoints at {PARITY}; a round trip is tested below")
    folder = PARITY / name
    inputs = json.loads((folder / "inputs.json").read_text())
    files = [PARITY / "images" / image for image in inputs["images"]]
    return folder, np.load(folder / "expected.npz"), inputs["captions"], files


def text_inputs(expected):
    token_ids = expected["input_ids"].astype("int32")
    padding_mask = expected["attention_mask"].astype("int32")
    return {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": padding_mask,
    }


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_reference_checkpoint_gives_its_own_numbers(name):
    folder, expected, captions, files = reference(name)
    model = AlignDualEncoder.from_preset(folder)

    tokens = model.preprocessor.tokenize(captions)
    np.testing.assert_array_equal(tokens["token_ids"], expected["input_ids"])
    np.testing.assert_array_equal(tokens["padding_mask"], expected["attention_mask"])
    pixels = [model.preprocessor.decode_image(file.read_bytes()) for file in files]
    np.testing.assert_allclose(pixels, expected["pixel_values"], atol=1e-6)

    images = model.encode_images(expected["pixel_values"])
    texts = model.encode_texts(text_inputs(expected))
    np.testing.assert_allclose(images, expected["image_embeds"], atol=1e-5)
    np.testing.assert_allclose(texts, expected["text_embeds"], atol=1e-5)

    # From files and strings, all the way.
    images, texts = model.encode_images(files), model.encode_texts(captions)
    np.testing.assert_allclose(images, expected["image_embeds"], atol=1e-5)
    np.testing.assert_allclose(texts, expected["text_embeds"], atol=1e-5)
    assert float(model.temperature) == pytest.approx(float(expected["temperature"]), rel=1e-6)
    logits = model({"images": expected["pixel_values"], **text_inputs(expected)})["logits"]
    np.testing.assert_allclose(logits, expected["logits_per_image"], atol=1e-3)


def _types(kind):
    return {"stackwise_block_types": [kind] + ["unfused"] * 6}


@pytest.mark.parametrize(
    "change",
    [
        _types("unfused"),
        {"stackwise_block_types": ["v1"] * 7},
        {"include_stem_padding": True},
        {"stem_conv_padding": "same"},
        {"batch_norm_epsilon": 1e-5},
        {"approximate_gelu": True},
        {"first_block_residuals": True},
    ],
    ids=str,
)
def test_any_change_of_the_towers_is_noticed(change, monkeypatch):
    folder, expected, _, _ = reference("tiny")
    vision_arguments, text_arguments = configs.vision_arguments, configs.text_arguments
    backbone_changes = {k: v for k, v in change.items() if k[0] in "sib"}
    monkeypatch.setattr(
        configs,
        "vision_arguments",
        lambda config: ({**vision_arguments(config)[0], **backbone_changes}, 0.99),
    )
    monkeypatch.setattr(
        configs,
        "text_arguments",
        lambda config: (text_arguments(config)[0], change.get("approximate_gelu", False)),
    )
    if "first_block_residuals" in change:
        rewire = efficientnet.rewire
        monkeypatch.setattr(efficientnet, "rewire", lambda backbone, _: rewire(backbone, True))
    try:
        model = AlignDualEncoder.from_preset(folder)
    except ValueError as error:
        # The k x k projection of "unfused" does not fit the checkpoint's 1 x 1.
        assert "project_conv.weight has the shape" in str(error)
        return
    images = model.encode_images(expected["pixel_values"])
    texts = model.encode_texts(text_inputs(expected))
    error = max(
        np.abs(images - expected["image_embeds"]).max(),
        np.abs(texts - expected["text_embeds"]).max(),
    )
    # The unchanged towers are off by less than 1e-6, and the tests above allow 1e-5.
    assert error > 5e-5


def small_model(pieces, approximate_gelu=True, antialias=True, sequence_length=12):
    """An untrained model that the layout can express, with statistics that are not the initial."""
    backbone, _ = configs.vision_arguments({"width_coefficient": 0.5, "depth_coefficient": 0.5})
    tower = ImageEncoder(
        keras_hub.models.EfficientNetBackbone(**backbone), first_block_residuals=False
    )
    bert = keras_hub.models.BertBackbone(
        vocabulary_size=len(pieces),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=sequence_length,
    )
    model = AlignDualEncoder(
        AlignBackbone(tower, TextEncoder(bert, approximate_gelu), 160),
        AlignPreprocessor(pieces, 33, 40, sequence_length, antialias=antialias),
        initial_temperature=0.07,
    )
    rng = np.random.default_rng(0)
    for variable in model.backbone.weights:
        if "seed" not in variable.path:
            noise = rng.uniform(0.5, 1.5, variable.shape)
            variable.assign(variable.numpy() * noise + (noise - 1.0) * 0.1)
    return model


@pytest.mark.parametrize(
    ("approximate_gelu", "antialias", "sequence_length"), [(True, False, 100), (False, True, 12)]
)
def test_an_exported_model_comes_back_the_same(
    approximate_gelu, antialias, sequence_length, pieces, tmp_path, scene_images
):
    model = small_model(pieces, approximate_gelu, antialias, sequence_length)
    model.log_temperature.assign(np.log(0.03))
    model.export_to_transformers(tmp_path / "exported")
    same = AlignDualEncoder.from_preset(tmp_path / "exported")
    captions = ["A red circle!", "blue ring " * 40, ""]
    images = [each.encode_images(scene_images) for each in (same, model)]
    np.testing.assert_array_equal(*images)
    np.testing.assert_array_equal(same.encode_texts(captions), model.encode_texts(captions))
    assert float(same.temperature) == pytest.approx(0.03, rel=1e-6)
    assert same.backbone.text_encoder.approximate_gelu == approximate_gelu
    # And once more out: every file is the same, but for where the temperature began.
    same.export_to_transformers(tmp_path / "again")
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        contents = [(tmp_path / folder / name).read_text() for folder in ("exported", "again")]
        assert contents[0] == contents[1], name
    configurations = [
        json.loads((tmp_path / folder / "config.json").read_text())
        for folder in ("exported", "again")
    ]
    for configuration in configurations:
        del configuration["temperature_init_value"]
    assert configurations[0] == configurations[1]
    tensors = [
        safetensors.numpy.load_file(tmp_path / folder / "model.safetensors")
        for folder in ("exported", "again")
    ]
    assert tensors[0].keys() == tensors[1].keys()
    for name, value in tensors[0].items():
        np.testing.assert_allclose(tensors[1][name], value, rtol=1e-6, err_msg=name)


def test_a_reference_checkpoint_is_exported_as_it_came(tmp_path):
    folder, *_ = reference("tiny")
    AlignDualEncoder.from_preset(folder).export_to_transformers(tmp_path)
    before, after = (
        safetensors.numpy.load_file(path / "model.safetensors") for path in (folder, tmp_path)
    )
    assert before.keys() == after.keys()
    for name, value in before.items():
        if "pooler" not in name and "num_batches" not in name:
            np.testing.assert_allclose(after[name], value, rtol=1e-6, err_msg=name)
    for part in ("text_config", "vision_config"):
        configurations = [
            json.loads((path / "config.json").read_text())[part] for path in (folder, tmp_path)
        ]
        for name, value in configurations[1].items():
            assert configurations[0][name] == pytest.approx(value), name
    processors = [
        json.loads((path / "preprocessor_config.json").read_text()) for path in (folder, tmp_path)
    ]
    assert {name: processors[0].get(name) for name in processors[1]} == {
        **processors[1],
        "processor_class": None,
        hugging_face.OWN_SETTINGS: None,
    }


def split(folder, parts):
    """Splits a checkpoint's tensors into several files with an index."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {}
    for part in range(parts):
        names = sorted(tensors)[part::parts]
        file = f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        safetensors.numpy.save_file({name: tensors[name] for name in names}, folder / file)
        files |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def exported(pieces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = small_model(pieces)
    model.export_to_transformers(folder)
    return folder, model


@pytest.fixture
def checkpoint(exported, tmp_path):
    """A copy of an exported checkpoint, to damage."""
    return shutil.copytree(exported[0], tmp_path / "checkpoint")


def change(file, **values):
    """Changes values of a JSON file; a name may have a dot in it."""
    content = json.loads(file.read_text())
    for name, value in values.items():
        *outer, inner = name.split("__")
        place = content
        for part in outer:
            place = place[part]
        place[inner] = value
    file.write_text(json.dumps(content))


def test_a_checkpoint_in_several_files_loads(exported, checkpoint):
    split(checkpoint, 3)
    model = AlignDualEncoder.from_preset(checkpoint)
    np.testing.assert_array_equal(model.encode_texts(["red"]), exported[1].encode_texts(["red"]))


def test_half_precision_checkpoints_load(exported, checkpoint):
    tensors = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    halves = {name: value.astype("float16") for name, value in tensors.items()}
    safetensors.numpy.save_file(halves, checkpoint / "model.safetensors")
    texts = AlignDualEncoder.from_preset(checkpoint).encode_texts(["red ring"])
    np.testing.assert_allclose(texts, exported[1].encode_texts(["red ring"]), atol=2e-3)


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


def test_the_temperature_is_one_of_the_weights(exported):
    options = {"initial_temperature": 1.0, "min_temperature": 0.001}
    model = AlignDualEncoder.from_preset(exported[0], **options)
    assert float(model.temperature) == pytest.approx(0.07)
    fresh = AlignDualEncoder.from_preset(exported[0], load_weights=False, **options)
    assert float(fresh.temperature) == 1.0


def test_missing_values_of_a_configuration_are_those_of_the_original():
    text, approximate = configs.text_arguments({})
    assert (text["num_layers"], text["hidden_dim"], text["vocabulary_size"]) == (12, 768, 30522)
    assert not approximate
    vision, momentum = configs.vision_arguments({})
    assert vision["stackwise_width_coefficients"] == [2.0] * 7
    assert momentum == 0.99


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"text_config__hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ("config.json", {"text_config__layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05"),
        ("config.json", {"vision_config__pooling_type": "max"}, "pooling_type 'max'"),
        ("config.json", {"vision_config__depthwise_padding": [3]}, "depthwise_padding"),
        ("config.json", {"projection_dim": 99}, "projection_dim is 99, where the image tower is"),
        ("config.json", {"text_config__vocab_size": 9}, "word_embeddings.weight has the shape"),
        ("config.json", {"text_config__num_hidden_layers": 3}, "no tensor text_model.encoder"),
        ("preprocessor_config.json", {"resample": 0}, "resample 0 is not supported"),
        ("preprocessor_config.json", {"size": {"height": 3, "width": 4}}, "size must be a square"),
        ("config.json", {"vision_config__strides": [1, 2]}, "strides has 2 stages, kernel_sizes 7"),
        ("config.json", {"vision_config__squeeze_expansion_ratio": 2}, "squeeze_expansion_ratio"),
        ("tokenizer.json", {"model__type": "BPE"}, "BPE is not supported, only WordPiece"),
        ("tokenizer.json", {"model__vocab__red": 9999}, "the ids of its vocabulary have a gap"),
        (
            "tokenizer.json",
            {"added_tokens": [{"content": "<new>", "id": 900}]},
            "the added token '<new>' is not in its vocabulary",
        ),
        (
            "tokenizer_config.json",
            {"tokenize_chinese_chars": False},
            "does not set ideographs apart",
        ),
    ],
)
def test_what_is_not_supported_is_one_clear_line(file, values, message, checkpoint):
    change(checkpoint / file, **values)
    with pytest.raises(ValueError, match=message) as raised:
        AlignDualEncoder.from_preset(checkpoint)
    assert str(checkpoint) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json", "vocab.txt"])
def test_a_missing_file_is_named(name, checkpoint):
    (checkpoint / name).unlink()
    if name == "vocab.txt":
        (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=name):
        AlignDualEncoder.from_preset(checkpoint)


def test_broken_weights_are_one_clear_line(checkpoint):
    data = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=str(checkpoint)):
        AlignDualEncoder.from_preset(checkpoint)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_interrupted_import_leaves_keras_usable(error, exported, monkeypatch):
    read, count = transformers._read, itertools.count()

    def read_some(name, files):
        if next(count) == 40:
            raise error("enough")
        return read(name, files)

    monkeypatch.setattr(transformers, "_read", read_some)
    with pytest.raises((ValueError, KeyboardInterrupt), match="enough"):
        AlignBackbone.from_preset(exported[0])
    monkeypatch.undo()
    with keras.StatelessScope():
        build_text_encoder("bert_tiny", 10)
    loaded = AlignBackbone.from_preset(exported[0])
    assert all(variable._value is not None for variable in loaded.variables)


@pytest.mark.parametrize(
    ("scaling", "factor", "offset"),
    [
        ({"do_normalize": False, "rescale_offset": True, "rescale_factor": 1 / 127.5}, 2 / 255, -1),
        ({"do_normalize": False, "rescale_offset": False}, 1 / 255, 0),
        ({"rescale_offset": False, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}, 4 / 255, -2),
    ],
)
def test_pixels_are_scaled_as_the_configuration_says(scaling, factor, offset):
    base = {"size": 8, "resample": 2, "include_top": False}
    arguments = hugging_face.preprocessor_arguments({**base, **scaling})
    np.testing.assert_allclose(arguments["pixel_scale"], factor)
    np.testing.assert_allclose(arguments["pixel_offset"], offset)
    preprocessor = AlignPreprocessor(**arguments)
    written = hugging_face.preprocessor_config(preprocessor)
    again = hugging_face.preprocessor_arguments(written)
    for name in ("pixel_scale", "pixel_offset"):
        np.testing.assert_allclose(again[name], arguments[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: setattr(model, "preprocessor", None), "no preprocessor"),
        (
            lambda model: setattr(model.backbone, "image_projection", keras.layers.Dense(3)),
            "no projection of images",
        ),
    ],
)
def test_what_the_layout_cannot_express_is_not_exported(spoil, message, pieces, tmp_path):
    model = small_model(pieces)
    spoil(model)
    with pytest.raises(ValueError, match=message):
        model.export_to_transformers(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_fused_tower_is_not_exported(pieces, tmp_path, build_tiny):
    model = build_tiny()
    tower = model.backbone.image_encoder
    backbone = AlignBackbone(tower, build_text_encoder("bert_tiny", len(pieces)), 16)
    model = AlignDualEncoder(backbone, AlignPreprocessor(pieces))
    with pytest.raises(ValueError, match="the Hugging Face layout has no"):
        model.export_to_transformers(tmp_path / "x")


@pytest.mark.parametrize(
    ("kind", "shape", "theirs"),
    [
        ("convolution", (3, 5, 2, 7), (7, 2, 3, 5)),
        ("depthwise", (3, 5, 4, 1), (4, 1, 3, 5)),
        ("dense", (6, 2, 3), (6, 6)),
        ("heads", (2, 3, 5), (5, 6)),
        ("vector", (2, 3), (6,)),
        ("table", (9, 2), (9, 2)),
    ],
)
def test_axes_go_over_and_back(kind, shape, theirs):
    values = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    weight = Weight("w", keras.Variable(values), kind)
    assert weight.their_shape == theirs
    np.testing.assert_array_equal(weight.to_keras(weight.from_keras()), values)


MEASURE = """
import sys, threading, time
import tensorflow as tf
from align_keras import AlignBackbone

def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

AlignBackbone.from_preset(sys.argv[2])
before, peak = memory(), 0
def watch():
    global peak
    while True:
        peak = max(peak, memory())
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
backbone = AlignBackbone.from_preset(sys.argv[1])
print((peak - before) / (4 * backbone.count_params()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_loading_takes_less_than_one_and_a_half_times_the_weights(exported, tmp_path):
    # 300 MB of word embeddings and layers: what Python itself takes does not count for much.
    vocabulary = exported[1].preprocessor.vocabulary
    bert = keras_hub.models.BertBackbone(
        vocabulary_size=30_000,
        num_layers=6,
        num_heads=4,
        hidden_dim=1024,
        intermediate_dim=2048,
        max_sequence_length=12,
    )
    backbone = AlignBackbone(exported[1].backbone.image_encoder, TextEncoder(bert), 160)
    model = AlignDualEncoder(backbone, AlignPreprocessor(vocabulary, 33, 40, 12))
    model.export_to_transformers(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(exported[0])],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert 0.9 < float(result.stdout) < 1.5
