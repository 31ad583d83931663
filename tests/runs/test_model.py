"""The model of a run: the GELU of its text tower, also in a resumed run."""

import json

import bert_reference
import numpy as np
import pytest
from checkpoints import change

from align_keras import AlignDualEncoder, AlignPreprocessor
from align_keras.errors import InputError
from align_keras.models import pretrained
from align_keras.runs import model as models
from align_keras.runs.pretraining_parts import ModelSettings
from align_keras.runs.pretraining_settings import PretrainSettings


@pytest.fixture(scope="module")
def bert(tmp_path_factory, pieces):
    """A BERT with the exact GELU, in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("bert")
    bert_reference.write(folder, pieces)
    return folder


def settings_of(**model):
    return ModelSettings(preset="tiny", **model)


def test_the_gelu_is_what_the_folder_says_or_what_is_chosen(bert, pieces, tmp_path):
    gelu_of = {
        "exact": settings_of(text_encoder=str(bert)),
        "tanh": settings_of(text_encoder=str(bert), text_gelu="tanh"),
    }
    for gelu, settings in gelu_of.items():
        assert models.with_gelu(settings).text_gelu == gelu
    assert models.with_gelu(settings_of()).text_gelu == "tanh"
    assert models.with_gelu(settings_of(text_gelu="exact")).text_gelu == "exact"
    assert models.with_gelu(settings_of(model="runs/other")).text_gelu is None
    with pytest.raises(InputError, match="none: no such folder") as raised:
        models.with_gelu(settings_of(text_encoder="none"))
    assert raised.value.setting == "text_encoder"


def test_a_run_keeps_the_gelu_in_its_preset(bert, tiny_preset, tmp_path):
    preprocessor = AlignPreprocessor(**pretrained.word_pieces(bert), image_size=16, resize_size=16)
    preprocessor.sequence_length = 24
    settings = models.with_gelu(settings_of(text_encoder=str(bert)))
    model = AlignDualEncoder(models.make_backbone(settings, preprocessor), preprocessor)
    model.save_to_preset(tmp_path / "preset")
    same = AlignDualEncoder.from_preset(tmp_path / "preset")
    captions = ["a large red circle", "Café GREEN!"]
    np.testing.assert_array_equal(same.encode_texts(captions), model.encode_texts(captions))
    assert same.backbone.text_encoder.approximate_gelu is False
    for gelu in ("exact", "tanh"):
        tower = models.make_backbone(settings_of(text_gelu=gelu), preprocessor).text_encoder
        assert tower.approximate_gelu is (gelu == "tanh")


def test_captions_longer_than_the_towers_positions_are_refused(bert, tiny_preset):
    preprocessor = AlignPreprocessor(**pretrained.word_pieces(bert), sequence_length=25)
    settings = models.with_gelu(settings_of(text_encoder=str(bert)))
    with pytest.raises(InputError, match="25 is more than the 24 positions of the") as raised:
        models.make_backbone(settings, preprocessor)
    assert raised.value.setting == "sequence_length"


def test_a_run_resumes_with_the_gelu_that_it_began_with(tmp_path):
    exact = PretrainSettings().replace(text_encoder="bert", text_gelu="exact")
    exact.check_resumable(json.loads(exact.as_json()), tmp_path)
    before = json.loads(exact.as_json())
    # The run is from a version without this setting.
    del before["text_gelu"]
    exact.replace(text_gelu="tanh").check_resumable(before, tmp_path)
    with pytest.raises(InputError, match="^text_gelu: .* began with 'tanh', not 'exact'"):
        exact.check_resumable(before, tmp_path)
    tuned = PretrainSettings().replace(model="runs/other")
    before = json.loads(tuned.as_json())
    del before["text_gelu"]
    tuned.check_resumable(before, tmp_path)


def test_a_trained_model_brings_its_gelu():
    settings = PretrainSettings().replace(model="x", train_data="x", text_gelu="tanh")
    with pytest.raises(InputError, match="a trained model comes with its own; leave out text_gelu"):
        settings.check()


def test_a_folder_whose_activation_is_another_is_named_by_the_setting(bert, tmp_path):
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    change(tmp_path / "config.json", hidden_act="relu")
    with pytest.raises(InputError, match="column hidden_act: 'relu' is not supported") as raised:
        models.with_gelu(settings_of(text_encoder=str(tmp_path)))
    assert raised.value.setting == "text_encoder"
