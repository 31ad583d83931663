"""If a hub does not answer or refuses, there is one clear line."""

import dataclasses
import importlib
import sys
import types

import huggingface_hub.constants
import pytest
import requests

from align_keras import AlignBackbone, AlignDualEncoder, AlignPreprocessor, hub
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.models import pretrained


def assert_refused(address, problem):
    for cls in (AlignDualEncoder, AlignBackbone, AlignPreprocessor):
        with pytest.raises(InputError) as raised:
            cls.from_preset(address)
        assert raised.value.place == Place(address)
        assert raised.value.problem.startswith(problem)
        assert "\n" not in str(raised.value)


def test_an_offline_hugging_face_hub_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)
    assert_refused("hf://kakaobrain/align-base", "the hub cannot be reached")


def test_an_offline_kaggle_is_one_clear_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.exceptions.ConnectionError("no route\nto the host")

    monkeypatch.setattr(requests.Session, "send", refuse)
    assert_refused("kaggle://keras/align/keras/align_base", "the hub cannot be reached")
    with pytest.raises(InputError, match="the hub cannot be reached") as raised:
        pretrained.load_text_encoder("bert_base_en_uncased")
    assert raised.value.place == Place("bert_base_en_uncased")
    assert raised.value.remedy == "connect to the network, or give a local folder"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the hub has no such model, or requires you to log in"),
        (403, "the hub refuses access"),
        (404, "the hub has no such model"),
        (429, "the hub limits the rate of requests"),
        (503, "the hub failed (status 503)"),
    ],
)
def test_what_a_hub_answers_is_reported(status, message, monkeypatch):
    class AnswerError(Exception):
        response = types.SimpleNamespace(status_code=status)

    def answer(*args, **kwargs):
        raise AnswerError(f"{status} Client Error. (Request ID: 1)\n\nlong text")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    assert_refused("hf://nobody/nothing", message)


@pytest.mark.parametrize(
    "name", ["ConnectError", "ReadTimeout", "ProxyError", "RemoteProtocolError", "ReadError"]
)
def test_what_cuts_the_line_is_reported(name, monkeypatch):
    client = importlib.import_module("huggingface_hub.utils._http")
    httpx = next(
        value
        for value in vars(client).values()
        if getattr(value, "__name__", "").startswith("httpx") and hasattr(value, name)
    )

    def cut(*args, **kwargs):
        raise getattr(httpx, name)("cut")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cut)
    assert_refused("hf://nobody/nothing", "the hub cannot be reached (cut)")


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (None, Place("FOLDER")),
        (
            Place(member="config.json"),
            Place("FOLDER", member="config.json"),
        ),
        (Place("FOLDER/assets/vocabulary.txt"), Place("FOLDER", member="assets/vocabulary.txt")),
        # A file of a hub, in the cache to which it was downloaded.
        (Place("/cache/a1/vocab.txt", "line 3"), Place("FOLDER", "line 3", "vocab.txt")),
    ],
)
def test_a_fault_of_a_file_has_its_place_in_the_preset(place, found, tmp_path):
    def here(place):
        return dataclasses.replace(place, file=place.file.replace("FOLDER", str(tmp_path)))

    with pytest.raises(InputError) as raised, hub.one_line(tmp_path):
        raise InputError("broken", place and here(place))
    assert raised.value.place == here(found)


def test_what_is_missing_is_a_missing_input(tmp_path):
    with pytest.raises(MissingInputError) as raised, hub.one_line(tmp_path / "none"):
        raise AssertionError
    assert raised.value.place == Place(str(tmp_path / "none"))
    with pytest.raises(MissingInputError, match="not there"), hub.one_line(tmp_path):
        raise FileNotFoundError("not there\nat all")


def test_network_errors_are_reported_from_others():
    assert hub._is_network(ConnectionRefusedError())
    assert not hub._is_network(FileNotFoundError("x"))
