"""Hubs that do not answer, or refuse: one clear line each."""

import importlib
import sys
import types

import huggingface_hub.constants
import pytest
import requests

from align_keras import AlignBackbone, AlignDualEncoder, AlignPreprocessor, hub
from align_keras.models import pretrained


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


def test_network_errors_are_told_from_others():
    assert hub._is_network(ConnectionRefusedError())
    assert not hub._is_network(FileNotFoundError("x"))
