"""Loading from Hugging Face's hub end to end, from a server that speaks its protocol."""

import importlib
import json
import shutil
import time
import types

import bert_reference
import huggingface_hub.constants
import numpy as np
import pytest
from conftest import SHARED, build_tiny_model
from hub_server import serving

from align_keras import AlignDualEncoder, sharing
from align_keras.errors import InputError
from align_keras.models import pretrained

MODEL = "somebody/align-tiny"


@pytest.fixture(scope="module")
def preset(tmp_path_factory, preprocessor):
    folder = tmp_path_factory.mktemp("preset")
    size = len(preprocessor.vocabulary)
    build_tiny_model(preprocessor=preprocessor, vocabulary_size=size).save_to_preset(folder)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch, preset):
    """A hub with one model; downloads go into a cache of this test."""
    shutil.copytree(preset, tmp_path / "hub" / MODEL)
    constants = huggingface_hub.constants
    with serving(tmp_path / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        # The hub's client waits longer before each retry.
        client = importlib.import_module("huggingface_hub.utils._http")
        impatient = types.SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
        monkeypatch.setattr(client, "time", impatient)
        yield hub


def embeddings(preset):
    model = AlignDualEncoder.from_preset(preset)
    return model.encode_texts(["a red circle", "a blue square"])


def test_a_bert_with_tokenizer_json_alone_is_a_text_tower(hub, tmp_path, pieces):
    folder = tmp_path / "hub" / "somebody" / "bert"
    folder.mkdir()
    bert_reference.write(folder, pieces)
    towers = [pretrained.load_text_encoder(place) for place in (folder, "hf://somebody/bert")]
    assert [tower.approximate_gelu for tower in towers] == [False, False]
    for local, downloaded in zip(*(tower.get_weights() for tower in towers), strict=True):
        np.testing.assert_array_equal(local, downloaded)
    assert pretrained.word_pieces("hf://somebody/bert")["vocabulary"] == list(pieces)
    with pytest.raises(InputError, match="hf://somebody/other: the hub has no such model"):
        pretrained.word_pieces("hf://somebody/other")


def test_a_model_is_downloaded_cached_and_used_offline(hub, preset, monkeypatch):
    expected = embeddings(preset)
    np.testing.assert_array_equal(embeddings(f"hf://{MODEL}"), expected)
    bodies = [path for method, path in hub.requests if method == "GET" and "/cdn/" in path]
    hub.requests.clear()
    AlignDualEncoder.from_preset(f"hf://{MODEL}")
    again = [path for method, path in hub.requests if method == "GET" and "/cdn/" in path]
    assert bodies
    assert not again
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    np.testing.assert_array_equal(embeddings(f"hf://{MODEL}"), expected)
    assert not hub.requests


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "no such model, or requires you to log in"),
        (403, "refuses access; accept the model's terms"),
        (404, "no such model"),
        (429, "limits the rate of requests"),
        (500, r"failed \(status 500\)"),
        (503, r"failed \(status 503\)"),
    ],
)
def test_a_refusal_is_one_line(status, message, hub):
    hub.refuse = status
    with pytest.raises(ValueError, match=message) as caught:
        AlignDualEncoder.from_preset(f"hf://{MODEL}")
    assert "\n" not in str(caught.value)
    assert MODEL in str(caught.value)


def test_a_model_that_is_not_there(hub):
    with pytest.raises(ValueError, match="no such model"):
        AlignDualEncoder.from_preset("hf://somebody/else")


def test_a_download_that_is_cut_off_goes_on(hub, preset):
    hub.cut_after = 1000
    expected = embeddings(preset)
    try:
        found = embeddings(f"hf://{MODEL}")
    except ValueError as error:
        assert "\n" not in str(error)
        found = embeddings(f"hf://{MODEL}")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["tiny", "tiny_bin"])
def test_a_checkpoint_in_hugging_faces_layout(kind, hub):
    if not (SHARED / "parity" / kind).exists():
        pytest.skip(f"no ../shared/parity/{kind}")
    shutil.copytree(SHARED / "parity" / kind, hub.root / "somebody" / kind)
    model = AlignDualEncoder.from_preset(f"hf://somebody/{kind}")
    expected = np.load(SHARED / "parity" / kind / "expected.npz")["text_embeds"]
    captions = json.loads((SHARED / "parity" / kind / "inputs.json").read_text())["captions"]
    np.testing.assert_allclose(model.encode_texts(captions), expected, atol=1e-4)


def test_a_preset_is_uploaded_with_its_card_and_loads_again(hub, preset):
    before = (preset / "README.md").read_bytes()
    sharing.upload_preset("hf://somebody/uploaded", preset)
    names = {name.removeprefix("somebody/uploaded/") for name in hub.uploads}
    assert {"config.json", "model.weights.h5", "task.json", "preprocessor.json"} <= names
    # keras-hub's own upload writes another card and removes both.
    assert hub.uploads["somebody/uploaded/README.md"] == before
    assert (preset / "README.md").read_bytes() == before
    assert ("POST", "/api/validate-yaml") in hub.requests
    for name, content in hub.uploads.items():
        (hub.root / name).parent.mkdir(parents=True, exist_ok=True)
        (hub.root / name).write_bytes(content)
    np.testing.assert_array_equal(
        embeddings("hf://somebody/uploaded"),
        embeddings(preset),
    )


def test_what_cannot_be_uploaded_is_one_line(hub, preset, tmp_path):
    for uri, folder, line in (
        ("gs://b/x", preset, "not an address to which a preset can be uploaded"),
        ("hf://a/b", tmp_path / "none", "none: no such folder"),
        ("hf://a/b", tmp_path, "no config.json in the preset; give the preset/ of a run"),
    ):
        with pytest.raises(InputError, match=line):
            sharing.upload_preset(uri, folder)
    shutil.copytree(preset, tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.weights.h5").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"model\.weights\.h5: damaged"):
        sharing.upload_preset("hf://a/b", tmp_path / "damaged")
    hub.refuse = 403
    with pytest.raises(InputError, match="hf://a/b: the hub refuses access"):
        sharing.upload_preset("hf://a/b", preset)
    assert not hub.uploads
