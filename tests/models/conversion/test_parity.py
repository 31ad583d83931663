"""Reference checkpoints, compared with outputs of the original implementation."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from conftest import SHARED

from align_keras import (
    AlignDualEncoder,
)
from align_keras.models import efficientnet
from align_keras.models.conversion import config as configs
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
    crops = [model.preprocessor.decode_centre_crop(file.read_bytes()) for file in files]
    pixels = model.preprocessor.scale(crops)
    np.testing.assert_allclose(pixels, expected["pixel_values"], atol=1e-6)

    images = model.encode_images(expected["pixel_values"])
    texts = model.encode_texts(text_inputs(expected))
    np.testing.assert_allclose(images, expected["image_embeds"], atol=1e-5)
    np.testing.assert_allclose(texts, expected["text_embeds"], atol=1e-5)

    # The same from files and strings.
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
        monkeypatch.setattr(
            efficientnet, "rewire", lambda backbone, _, top: rewire(backbone, True, top)
        )
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
