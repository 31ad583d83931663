"""Export to the Hugging Face layout and import from it."""

import itertools
import json
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from checkpoints import small_model

from align_keras import (
    AlignBackbone,
    AlignDualEncoder,
    AlignPreprocessor,
    build_text_encoder,
)
from align_keras.models.conversion.tensor_files import TensorFiles
from align_keras.models.conversion.weights import Weight
from align_keras.models.text_encoder import TextEncoder


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
    # A second export writes the same files, except for the initial temperature.
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


def test_the_temperature_is_one_of_the_weights(exported):
    options = {"initial_temperature": 1.0, "min_temperature": 0.001}
    model = AlignDualEncoder.from_preset(exported[0], **options)
    assert float(model.temperature) == pytest.approx(0.07)
    fresh = AlignDualEncoder.from_preset(exported[0], load_weights=False, **options)
    assert float(fresh.temperature) == 1.0


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_interrupted_import_leaves_keras_usable(error, exported, monkeypatch):
    read, count = TensorFiles.read, itertools.count()

    def read_some(files, name):
        if next(count) == 40:
            raise error("enough")
        return read(files, name)

    monkeypatch.setattr(TensorFiles, "read", read_some)
    with pytest.raises((ValueError, KeyboardInterrupt), match="enough"):
        AlignBackbone.from_preset(exported[0])
    monkeypatch.undo()
    with keras.StatelessScope():
        build_text_encoder("bert_tiny", 10)
    loaded = AlignBackbone.from_preset(exported[0])
    assert all(variable._value is not None for variable in loaded.variables)


@pytest.mark.parametrize(
    ("owner", "name", "value", "message"),
    [
        (lambda model: model, "preprocessor", None, "no preprocessor"),
        (lambda model: model.backbone, "image_projection", object(), "no projection of images"),
    ],
)
def test_what_the_layout_cannot_express_is_not_exported(
    owner, name, value, message, exported, tmp_path, monkeypatch
):
    monkeypatch.setattr(owner(exported[1]), name, value)
    with pytest.raises(ValueError, match=message):
        exported[1].export_to_transformers(tmp_path / "x")
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
    # The weights have 300 MB, so the memory of Python itself matters little.
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
