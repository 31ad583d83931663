"""Saving and loading: presets, ``.keras`` files, hubs that do not answer, keras-hub's towers."""

import dataclasses
import importlib
import shutil
import sys
import types

import huggingface_hub.constants
import keras
import keras_hub
import numpy as np
import pretrain
import pytest
import requests
from conftest import TINY_EFFICIENTNET
from experiments import EXPERIMENTS

from align_keras import (
    AlignBackbone,
    AlignDualEncoder,
    AlignPreprocessor,
    hub,
    pretrained,
)


@pytest.fixture
def model(build_tiny, preprocessor):
    """A tiny model as after training: every weight changed, an optimizer with state."""
    model = build_tiny(preprocessor=preprocessor, vocabulary_size=len(preprocessor.vocabulary))
    model.compile(keras.optimizers.AdamW(1e-2))
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(variable.numpy() + rng.uniform(0.05, 0.15, variable.shape))
    return model


CAPTIONS = ["A red ring!", "small blue star at the top", ""]


def assert_embeds_alike(loaded, model, scene_images):
    images = [each.encode_images(scene_images) for each in (loaded, model)]
    np.testing.assert_allclose(*images, atol=1e-6)
    np.testing.assert_allclose(
        loaded.encode_texts(CAPTIONS), model.encode_texts(CAPTIONS), atol=1e-6
    )


def test_a_task_comes_back_from_its_preset(model, scene_images, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    loaded = AlignDualEncoder.from_preset(tmp_path / "preset")
    assert_embeds_alike(loaded, model, scene_images)
    assert float(loaded.temperature) == float(model.temperature) != 0.2
    assert loaded.min_temperature == model.min_temperature
    # The files are keras-hub's, and hold no optimizer.
    assert {path.name for path in (tmp_path / "preset").iterdir()} == {
        "assets",
        "config.json",
        "metadata.json",
        "model.weights.h5",
        "preprocessor.json",
        "task.json",
        "task.weights.h5",
    }
    assert (tmp_path / "preset" / "task.weights.h5").stat().st_size < 20_000
    vocabulary = (tmp_path / "preset/assets/tokenizer/vocabulary.txt").read_text().splitlines()
    assert vocabulary == model.preprocessor.vocabulary


def test_options_stand_in_place_of_the_presets_own(model, tmp_path):
    model.save_to_preset(tmp_path)
    assert AlignDualEncoder.from_preset(tmp_path, min_temperature=0.01).min_temperature == 0.01
    preprocessor = AlignPreprocessor.from_preset(tmp_path, image_size=24, resize_size=30)
    assert (preprocessor.image_size, preprocessor.resize_size) == (24, 30)
    assert preprocessor.vocabulary == model.preprocessor.vocabulary


def test_random_weights_on_request(model, tmp_path, scene_images):
    model.save_to_preset(tmp_path)
    fresh = AlignDualEncoder.from_preset(tmp_path, load_weights=False)
    difference = fresh.encode_texts(CAPTIONS) - model.encode_texts(CAPTIONS)
    assert np.abs(difference).max() > 0.01


def test_a_backbone_comes_back_from_its_preset(model, tmp_path, batch):
    model.backbone.save_to_preset(tmp_path)
    batch["token_ids"] %= len(model.preprocessor.vocabulary)
    # By its own class and, as others of keras-hub's, by their base class.
    for cls in (AlignBackbone, keras_hub.models.Backbone):
        loaded = cls.from_preset(str(tmp_path))
        assert isinstance(loaded, AlignBackbone)
        for name, value in loaded({name: batch[name] for name in loaded.input}).items():
            expected = model.backbone({name: batch[name] for name in loaded.input})[name]
            np.testing.assert_allclose(value, expected, atol=1e-6)


def test_a_preprocessor_comes_back_from_a_preset_of_its_own(preprocessor, scene_images, tmp_path):
    options = {"antialias": True, "lowercase": False, "pixel_scale": [0.1, 0.2, 0.3]}
    made = AlignPreprocessor(preprocessor.vocabulary, 16, 20, 12, **options)
    made.save_to_preset(tmp_path)
    loaded = AlignPreprocessor.from_preset(tmp_path)
    raw = {"images": scene_images, "captions": CAPTIONS}
    for name, value in loaded(raw).items():
        np.testing.assert_array_equal(value, made(raw)[name])
    for name in ("images", "token_ids"):
        assert np.abs(loaded(raw)[name] - preprocessor(raw)[name]).max() > 0


def test_synchronised_batch_norm_survives_a_preset(build_tiny, preprocessor, tmp_path):
    build_tiny(synchronized=True, preprocessor=preprocessor).save_to_preset(tmp_path)
    loaded = AlignDualEncoder.from_preset(tmp_path)
    norms = [
        layer
        for layer in loaded.backbone.image_encoder._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert norms
    assert all(layer.synchronized for layer in norms)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_preset_loads_in_another_precision(dtype, model, tmp_path, scene_images):
    model.save_to_preset(tmp_path)
    loaded = AlignDualEncoder.from_preset(tmp_path, dtype=dtype)
    assert keras.config.dtype_policy().name == "float32"
    kernels = [v for v in loaded.backbone.trainable_variables if "kernel" in v.path]
    assert {v.dtype for v in kernels} == {"float32"}
    layers = [loaded.backbone.image_encoder.get_layer("stem_conv")]
    layers += [loaded.backbone.text_encoder.get_layer("token_embedding")]
    layers += [loaded.backbone.text_projection]
    assert {layer.compute_dtype for layer in layers} == {dtype.removeprefix("mixed_")}
    images = loaded.encode_images(scene_images)
    assert images.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(images, model.encode_images(scene_images), atol=0.05)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_a_model_of_another_precision_comes_back(policy, model, tmp_path):
    model.save_to_preset(tmp_path / "float32")
    mixed = AlignDualEncoder.from_preset(tmp_path / "float32", dtype=policy)
    mixed.save_to_preset(tmp_path / "mixed")
    for options in ({}, {"dtype": "float32"}):
        loaded = AlignDualEncoder.from_preset(tmp_path / "mixed", **options)
        assert loaded.backbone.text_projection.compute_dtype == "float32"
        np.testing.assert_allclose(
            loaded.encode_texts(CAPTIONS), model.encode_texts(CAPTIONS), atol=0.02
        )
    again = AlignDualEncoder.from_preset(tmp_path / "mixed", dtype=policy)
    np.testing.assert_allclose(
        again.encode_texts(CAPTIONS), mixed.encode_texts(CAPTIONS), atol=1e-6
    )


@pytest.mark.parametrize(
    "freeze",
    [
        lambda model: model.backbone.image_encoder,
        lambda model: model.backbone.text_encoder,
        lambda model: model.backbone,
        lambda model: model,
    ],
)
@pytest.mark.parametrize("form", ["keras", "preset"])
def test_what_is_frozen_stays_frozen(freeze, form, model, tmp_path):
    freeze(model).trainable = False
    model.compile(keras.optimizers.AdamW(1e-2))
    if form == "keras":
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    else:
        model.save_to_preset(tmp_path)
        loaded = AlignDualEncoder.from_preset(tmp_path)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


class OtherEncoder(AlignDualEncoder):
    """A subclass that nothing has saved."""


def test_a_subclass_does_not_take_another_class_for_its_own(model, tmp_path):
    model.save_to_preset(tmp_path)
    with pytest.raises(ValueError, match="holds AlignDualEncoder, which is no OtherEncoder"):
        OtherEncoder.from_preset(tmp_path)


def test_a_model_without_a_vocabulary_is_not_half_saved(build_tiny, tmp_path):
    model = build_tiny(preprocessor=AlignPreprocessor(image_size=16, resize_size=20))
    with pytest.raises(ValueError, match="the preprocessor has no vocabulary"):
        model.save_to_preset(tmp_path / "preset")
    assert not (tmp_path / "preset").exists()


def test_a_keras_file_holds_the_preprocessor_too(model, scene_images, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_embeds_alike(loaded, model, scene_images)
    assert loaded.preprocessor.get_config() == model.preprocessor.get_config()


def assert_refused(address, message):
    for cls in (AlignDualEncoder, AlignBackbone, AlignPreprocessor):
        with pytest.raises(ValueError, match=f"{address}: {message}") as raised:
            cls.from_preset(address)
        assert "\n" not in str(raised.value)


def test_an_offline_hugging_face_hub_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)
    assert_refused("hf://kakaobrain/align-base", "the hub cannot be reached")


def test_an_offline_kaggle_is_one_clear_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.exceptions.ConnectionError("no route\nto the host")

    monkeypatch.setattr(requests.Session, "send", refuse)
    assert_refused("kaggle://keras/align/keras/align_base", "the hub cannot be reached")
    with pytest.raises(ValueError, match="bert_base_en_uncased: the hub cannot be reached"):
        pretrained.load_text_encoder("bert_base_en_uncased")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the hub has no such model, or wants you to log in"),
        (403, "the hub refuses access"),
        (404, "the hub has no such model"),
        (429, "the hub asks to wait"),
        (503, r"the hub fails \(status 503\)"),
    ],
)
def test_what_a_hub_answers_is_told(status, message, monkeypatch):
    class AnswerError(Exception):
        response = types.SimpleNamespace(status_code=status)

    def answer(*args, **kwargs):
        raise AnswerError(f"{status} Client Error. (Request ID: 1)\n\nlong text")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    assert_refused("hf://nobody/nothing", message)


@pytest.mark.parametrize(
    "name", ["ConnectError", "ReadTimeout", "ProxyError", "RemoteProtocolError", "ReadError"]
)
def test_what_cuts_the_line_is_told(name, monkeypatch):
    client = importlib.import_module("huggingface_hub.utils._http")
    httpx = next(
        value
        for value in vars(client).values()
        if getattr(value, "__name__", "").startswith("httpx") and hasattr(value, name)
    )

    def cut(*args, **kwargs):
        raise getattr(httpx, name)("cut")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cut)
    assert_refused("hf://nobody/nothing", r"the hub cannot be reached \(cut\)")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda p: shutil.rmtree(p), FileNotFoundError, "no such folder"),
        (lambda p: (p / "config.json").unlink(), FileNotFoundError, "config.json"),
        (lambda p: (p / "config.json").write_text("{"), ValueError, "Expecting property name"),
        (lambda p: (p / "config.json").write_text("{}"), ValueError, "Unrecognized format"),
        (lambda p: (p / "config.json").write_text("[]"), ValueError, "holds no JSON object"),
        (lambda p: shutil.rmtree(p / "assets"), FileNotFoundError, "vocabulary.txt"),
        (lambda p: (p / "model.weights.h5").write_bytes(b"x"), ValueError, "open file"),
    ],
)
def test_a_broken_preset_is_one_clear_line(spoil, error, message, model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    spoil(tmp_path / "preset")
    with pytest.raises(error, match=message) as raised:
        AlignDualEncoder.from_preset(tmp_path / "preset")
    assert "\n" not in str(raised.value)


def test_a_preset_of_another_kind_is_refused(tmp_path):
    bert = keras_hub.models.BertBackbone(10, 1, 1, 4, 4, max_sequence_length=4)
    bert.save_to_preset(str(tmp_path))
    for cls in (AlignDualEncoder, AlignBackbone):
        with pytest.raises(ValueError, match="holds BertBackbone, which is no AlignBackbone"):
            cls.from_preset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no preprocessor.json of AlignPreprocessor"):
        AlignPreprocessor.from_preset(tmp_path)


def test_a_preset_is_named_by_a_string_or_a_path():
    with pytest.raises(ValueError, match="a preset is a folder or an address"):
        AlignDualEncoder.from_preset(7)


@pytest.fixture
def hub_towers(pieces, tmp_path):
    """Folders of a keras-hub EfficientNet and BERT, as the hubs have them."""
    image = keras_hub.models.EfficientNetBackbone(**TINY_EFFICIENTNET)
    image.save_to_preset(str(tmp_path / "image"))
    keras_hub.layers.EfficientNetImageConverter(
        image_size=(16, 16), scale=[0.02, 0.03, 0.04], offset=[-2.0, -1.0, 0.0]
    ).save_to_preset(str(tmp_path / "image"))
    bert = keras_hub.models.BertBackbone(len(pieces), 1, 2, 16, 32, max_sequence_length=12)
    bert.save_to_preset(str(tmp_path / "text"))
    keras_hub.tokenizers.BertTokenizer(list(pieces), lowercase=False).save_to_preset(
        str(tmp_path / "text")
    )
    bert.vocabulary = list(pieces)
    return {"image": (str(tmp_path / "image"), image), "text": (str(tmp_path / "text"), bert)}


def test_towers_start_from_keras_hub_presets(hub_towers, pieces, batch):
    folder, backbone = hub_towers["image"]
    features = pretrained.load_image_encoder(folder)(batch["images"])
    cut = keras.Model(backbone.input, backbone.get_layer("top_conv").input)
    np.testing.assert_allclose(features, np.mean(cut(batch["images"]), (1, 2)), atol=1e-5)
    assert pretrained.pixel_scaling(folder) == {
        "pixel_scale": [0.02, 0.03, 0.04],
        "pixel_offset": [-2.0, -1.0, 0.0],
    }
    folder, backbone = hub_towers["text"]
    inputs = {name: batch[name] for name in backbone.input}
    inputs["token_ids"] = inputs["token_ids"] % len(pieces)
    np.testing.assert_allclose(
        pretrained.load_text_encoder(folder)(inputs),
        backbone(inputs)["sequence_output"][:, 0],
        atol=1e-5,
    )
    assert pretrained.word_pieces(folder) == {"vocabulary": list(pieces), "lowercase": False}


def test_a_tower_without_a_converter_says_nothing_of_pixels(hub_towers, tmp_path):
    (tmp_path / "image" / "image_converter.json").unlink()
    assert pretrained.pixel_scaling(hub_towers["image"][0]) == {}


def test_network_errors_are_told_from_others():
    assert hub._is_network(ConnectionRefusedError())
    assert not hub._is_network(FileNotFoundError("x"))


def test_the_recipe_starts_from_keras_hub_towers(hub_towers, scene_shards, tmp_path):
    settings = dataclasses.replace(
        EXPERIMENTS["quickstart"],
        train_data=",".join(scene_shards[0]),
        eval_data=",".join(scene_shards[1]),
        workdir=str(tmp_path / "run"),
        image_encoder=hub_towers["image"][0],
        text_encoder=hub_towers["text"][0],
        image_size=16,
        resize_size=20,
        sequence_length=12,
        batch_size=20,
        steps=1,
        warmup_steps=0,
        learning_rate=1e-9,
    )
    pretrain.main(settings)
    model = AlignDualEncoder.from_preset(tmp_path / "run" / "preset")
    # What it expects came with the towers, and so did the weights.
    assert list(model.preprocessor.pixel_scale) == [0.02, 0.03, 0.04]
    assert model.preprocessor.vocabulary == hub_towers["text"][1].vocabulary
    assert model.preprocessor.lowercase is False
    kernels = [
        model.backbone.image_encoder.get_layer("stem_conv").kernel,
        hub_towers["image"][1].get_layer("stem_conv").kernel,
    ]
    np.testing.assert_allclose(*kernels, atol=1e-6)
    tables = [
        model.backbone.text_encoder.get_layer("token_embedding").embeddings,
        hub_towers["text"][1].get_layer("token_embedding").embeddings,
    ]
    np.testing.assert_allclose(*tables, atol=1e-6)
    assert model.backbone.image_projection is not None
    with pytest.raises(ValueError, match="--vocabulary: --text-encoder brings its own"):
        pretrain.main(dataclasses.replace(settings, vocabulary="vocab.txt"))
    with pytest.raises(FileNotFoundError, match="/none: no such folder"):
        missing = {"image_encoder": "/none", "workdir": str(tmp_path / "other")}
        pretrain.main(dataclasses.replace(settings, **missing))
