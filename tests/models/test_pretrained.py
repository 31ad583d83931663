"""Towers that start from keras-hub's presets, alone and in the recipe."""

import json

import keras
import keras_hub
import numpy as np
import pytest
from conftest import TINY_EFFICIENTNET
from experiments import PRETRAINING

from align_keras.models import pretrained
from align_keras.runs import pretraining


@pytest.fixture
def hub_towers(pieces, tmp_path):
    """Folders of a keras-hub EfficientNet and BERT, in the layout of the hubs."""
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


def test_timms_layout_says_mean_and_deviation_of_pixels(tmp_path):
    trained = {"input_size": [3, 224, 224], "interpolation": "bicubic"}
    trained |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    config = {"architecture": "efficientnet_b0", "pretrained_cfg": trained}
    (tmp_path / "config.json").write_text(json.dumps(config))
    scaling = pretrained.pixel_scaling(tmp_path)
    pixels = np.array([[0, 127, 255]])
    expected = (pixels / 255 - trained["mean"]) / trained["std"]
    found = pixels * scaling["pixel_scale"] + scaling["pixel_offset"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    converter = keras_hub.layers.EfficientNetImageConverter.from_preset(str(tmp_path))
    np.testing.assert_allclose(scaling["pixel_scale"], converter.scale, rtol=1e-6)
    np.testing.assert_allclose(scaling["pixel_offset"], converter.offset, rtol=1e-6)


def test_a_tower_without_a_converter_says_nothing_of_pixels(hub_towers, tmp_path):
    (tmp_path / "image" / "image_converter.json").unlink()
    assert pretrained.pixel_scaling(hub_towers["image"][0]) == {}


def test_the_recipe_starts_from_keras_hub_towers(hub_towers, scene_shards, tmp_path):
    settings = PRETRAINING["quickstart"].replace(
        train_data=",".join(scene_shards[0]),
        eval_data=",".join(scene_shards[1]),
        workdir=str(tmp_path / "run"),
        image_encoder=hub_towers["image"][0],
        text_encoder=hub_towers["text"][0],
        image_size=16,
        resize_size=20,
        sequence_length=12,
        batch_size=20,
    )
    model = pretraining.open_run(settings).model
    # Scaling and vocabulary come with the towers, as do the weights.
    assert list(model.preprocessor.pixel_scale) == [0.02, 0.03, 0.04]
    assert model.preprocessor.vocabulary == hub_towers["text"][1].vocabulary
    assert model.preprocessor.lowercase is False
    kernels = [
        model.backbone.image_encoder.get_layer("stem_conv").kernel,
        hub_towers["image"][1].get_layer("stem_conv").kernel,
    ]
    np.testing.assert_array_equal(*kernels)
    tables = [
        model.backbone.text_encoder.get_layer("token_embedding").embeddings,
        hub_towers["text"][1].get_layer("token_embedding").embeddings,
    ]
    np.testing.assert_array_equal(*tables)
    assert model.backbone.image_projection is not None
    with pytest.raises(ValueError, match="the text tower comes with its own; leave out vocabulary"):
        pretraining.pretrain(settings.replace(vocabulary="vocab.txt"))
    with pytest.raises(FileNotFoundError, match="/none: no such folder"):
        missing = {"image_encoder": "/none", "workdir": str(tmp_path / "other")}
        pretraining.pretrain(settings.replace(**missing))
