import hashlib
import json
from types import SimpleNamespace

import keras
import numpy as np
from conftest import TINY_IMAGE_SIZE, TINY_SEQUENCE

from align_keras import AlignDualEncoder, AlignPreprocessor
from align_keras.evaluation.fingerprint import fingerprint, is_fingerprint_of


def with_config(model, change):
    """The model with a changed config of its backbone."""
    backbone = model.backbone
    config = backbone.get_config()
    change(config)
    stand_in = SimpleNamespace(
        weights=backbone.weights,
        dtype_policy=backbone.dtype_policy,
        image_encoder=backbone.image_encoder,
        text_encoder=backbone.text_encoder,
        get_config=lambda: config,
    )
    return SimpleNamespace(backbone=stand_in, preprocessor=model.preprocessor)


def text_tower(config):
    return config["text_encoder"]["config"]


def image_tower(config):
    return config["image_encoder"]["config"]


def test_options_that_change_embeddings_change_it(tiny_model):
    changes = {
        "nothing": lambda config: None,
        "gelu": lambda config: text_tower(config).update(approximate_gelu=False),
        "heads": lambda config: text_tower(config)["backbone"]["config"].update(num_heads=4),
        "strides": lambda config: image_tower(config)["backbone"]["config"].update(
            stackwise_strides=[1, 1]
        ),
        "residuals": lambda config: image_tower(config).update(first_block_residuals=False),
    }
    found = {name: fingerprint(with_config(tiny_model, own)) for name, own in changes.items()}
    assert len(set(found.values())) == len(changes), found
    assert found["nothing"] == fingerprint(tiny_model)


def test_options_of_training_and_names_do_not(tiny_model):
    def change(config):
        config.update(name="other", trainable=False)
        text_tower(config).update(name="other")
        text_tower(config)["backbone"]["config"].update(dropout=0.5)
        image_tower(config).update(synchronized_batch_norm=True, batch_norm_momentum=0.5)

    assert fingerprint(with_config(tiny_model, change)) == fingerprint(tiny_model)


def test_preprocessing_and_vocabulary_change_it(tiny_model, pieces):
    sizes = TINY_IMAGE_SIZE, 20, TINY_SEQUENCE
    preprocessors = [
        AlignPreprocessor(pieces, *sizes),
        AlignPreprocessor(pieces, *sizes, antialias=True),
        AlignPreprocessor(pieces, *sizes, lowercase=False),
        AlignPreprocessor(pieces, *sizes, upright=False),
        AlignPreprocessor([*pieces[:-1], "another"], *sizes),
    ]
    found = [
        fingerprint(SimpleNamespace(backbone=tiny_model.backbone, preprocessor=own))
        for own in preprocessors
    ]
    assert found[0] == fingerprint(tiny_model)
    assert len(set(found)) == 5


def test_every_weight_changes_it(tiny_model):
    for weight in (tiny_model.backbone.weights[0], tiny_model.backbone.weights[-1]):
        before = weight.numpy()
        own = fingerprint(tiny_model)
        weight.assign(before + 1e-3)
        changed = fingerprint(tiny_model)
        weight.assign(before)
        assert changed != own == fingerprint(tiny_model)


def test_a_quantised_kernel_changes_it(tiny_model):
    found = set()
    for value in (1, 2):
        kernel = keras.Variable(np.full((2, 2), value, "int8"), dtype="int8", trainable=False)
        own = with_config(tiny_model, lambda config: None)
        own.backbone.weights = [*own.backbone.weights, kernel]
        found.add(fingerprint(own))
    assert len(found) == 2


def test_precision_changes_it_and_a_preset_does_not(tiny_model, tiny_run):
    loaded = AlignDualEncoder.from_preset(tiny_run / "preset")
    assert fingerprint(loaded) == fingerprint(tiny_model)
    half = AlignDualEncoder.from_preset(tiny_run / "preset", dtype="mixed_bfloat16")
    assert fingerprint(half) != fingerprint(tiny_model)


def test_fingerprints_without_the_options_of_towers_are_known(tiny_model):
    pre = tiny_model.preprocessor
    config = {
        name: value
        for name, value in pre.get_config().items()
        if name not in ("name", "trainable", "dtype", "upright")
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    digest.update(json.dumps(list(pre.vocabulary)).encode())
    for weight in tiny_model.backbone.weights:
        if "seed_generator" not in weight.path:
            digest.update(np.ascontiguousarray(weight))
    assert is_fingerprint_of(digest.hexdigest(), tiny_model)
    assert is_fingerprint_of(fingerprint(tiny_model), tiny_model)
    assert not is_fingerprint_of("0" * 64, tiny_model)
