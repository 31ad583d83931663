"""Saving and loading: presets and ``.keras`` files."""

import shutil

import keras
import keras_hub
import numpy as np
import pytest
from conftest import build_tiny_model

from align_keras import AlignBackbone, AlignDualEncoder, AlignPreprocessor, keras_internals
from align_keras.errors import InputError, MissingInputError


@pytest.fixture(scope="module")
def trained(preprocessor):
    """A tiny model as after training: all weights have changed, and the optimizer has a state."""
    pieces = len(preprocessor.vocabulary)
    model = build_tiny_model(preprocessor=preprocessor, vocabulary_size=pieces)
    model.compile(keras.optimizers.AdamW(1e-2))
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(variable.numpy() + rng.uniform(0.05, 0.15, variable.shape))
    return model


@pytest.fixture
def model(trained):
    """The trained model; after a test, all of it is trainable again."""
    yield trained
    trained.trainable = True


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
    # The files have keras-hub's names, and none of them has the optimizer.
    assert {path.name for path in (tmp_path / "preset").iterdir()} == {
        "README.md",
        "assets",
        "checksums.json",
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
    # It loads by its own class and, like keras-hub's backbones, by the base class.
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
        for layer in keras_internals.layers_of(loaded.backbone.image_encoder)
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
    """A subclass of which no preset has been saved."""


def test_a_subclass_does_not_take_another_class_for_its_own(model, tmp_path):
    model.save_to_preset(tmp_path)
    with pytest.raises(ValueError, match="holds AlignDualEncoder, but OtherEncoder is needed"):
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


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda p: shutil.rmtree(p), MissingInputError, "no such folder"),
        (lambda p: (p / "config.json").unlink(), MissingInputError, "config.json"),
        (lambda p: (p / "config.json").write_text("{"), InputError, "Expecting property name"),
        (lambda p: (p / "config.json").write_text("{}"), InputError, "Unrecognized format"),
        (lambda p: (p / "config.json").write_text("[]"), InputError, "is not a JSON object"),
        (lambda p: shutil.rmtree(p / "assets"), MissingInputError, "vocabulary.txt"),
        (lambda p: (p / "model.weights.h5").write_bytes(b"x"), InputError, "open file"),
    ],
)
def test_a_broken_preset_is_one_clear_line(spoil, error, message, model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    (tmp_path / "preset" / "checksums.json").unlink()  # as in a preset of an earlier version
    spoil(tmp_path / "preset")
    with pytest.raises(error, match=message) as raised:
        AlignDualEncoder.from_preset(tmp_path / "preset")
    assert raised.value.place.file == str(tmp_path / "preset")
    assert "\n" not in str(raised.value)


def test_a_preset_of_another_kind_is_refused(tmp_path):
    bert = keras_hub.models.BertBackbone(10, 1, 1, 4, 4, max_sequence_length=4)
    bert.save_to_preset(str(tmp_path))
    for cls in (AlignDualEncoder, AlignBackbone):
        with pytest.raises(ValueError, match="holds BertBackbone, but AlignBackbone is needed"):
            cls.from_preset(tmp_path)
    with pytest.raises(MissingInputError, match=r"no preprocessor.json of AlignPreprocessor"):
        AlignPreprocessor.from_preset(tmp_path)


def test_a_preset_is_named_by_a_string_or_a_path():
    with pytest.raises(ValueError, match="a preset is a folder or an address"):
        AlignDualEncoder.from_preset(7)
