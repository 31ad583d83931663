import concurrent.futures
import contextlib
import io
import re
import resource
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from bombs import make_bomb
from page_client import ask, places, text_of
from PIL import Image

from align_keras.errors import InputError
from align_keras.search import listening, page_guard
from align_keras.search.image_search import MAX_CLASSES, Query

# === What it answers ===


def test_answers_are_those_of_the_search(page_address, page_search, held_out_images):
    fields = {
        "text": "a red ring",
        "image": text_of(held_out_images[5]),
        "text_weight": 0.5,
        "count": 7,
    }
    status, answer = ask(page_address, "/search", fields)
    assert status == 200
    expected = page_search.find(Query("a red ring", held_out_images[5], 0.5), 7)
    assert places(answer) == [match.place for match in expected]
    assert answer["matches"][0]["score"] == pytest.approx(expected[0].score, abs=1e-5)
    status, answer = ask(page_address, "/search", {"image": text_of(held_out_images[0])})
    assert len(places(answer)) == 24
    assert answer["matches"][0]["name"] == "00.jpg"
    names = ["ring", " cross\t", "", "ring", "star"]
    fields = {"image": text_of(held_out_images[0]), "names": names, "prompt": "one {}"}
    status, answer = ask(page_address, "/classify", fields)
    assert status == 200
    shares = dict(answer["classes"])
    assert shares.keys() == {"ring", "cross", "star"}
    texts = page_search.model.encode_texts([f"one {name}" for name in shares])
    logits = (
        texts
        @ page_search.model.encode_images([held_out_images[0]])[0]
        / float(page_search.model.temperature)
    )
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(shares.values()), expected, atol=1e-5)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_it_gives_its_own_files_and_thumbnails_and_no_others(page_address):
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript")):
        with urllib.request.urlopen(page_address + path) as answer:
            assert answer.headers.get_content_type() == kind
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    with urllib.request.urlopen(f"{page_address}/thumbnail/29") as answer:
        assert Image.open(io.BytesIO(answer.read())).format == "JPEG"
    for path in (
        "/thumbnail/30",
        "/thumbnail/-1",
        "/original/0",
        "/original/..%2f..%2fetc%2fpasswd",
        "/thumbnail/..%2f..%2fetc%2fpasswd",
        "/page.py",
        "/..%2fpage.py",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/index/index.json",
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(page_address + path)
        assert raised.value.code == 404
        raised.value.close()


# === What must not harm it ===


@pytest.fixture(scope="module")
def bomb():
    return make_bomb()


def hostile_searches(jpg):
    one = text_of(jpg)
    return [
        ({"image": text_of(jpg[:200])}, "the image: does not decode; give a JPEG"),
        ({"image": text_of(b"\x00" * 1000)}, "the image: does not decode"),
        ({"image": text_of(b"<svg onload=alert(1)/>")}, "the image: does not decode"),
        ({"image": "%%%"}, "image is not base64"),
        ({"image": 5}, "image has the wrong type"),
        ({"image": one[:-3]}, "image is not base64"),
        ({}, "nothing to look for"),
        ({"text": ""}, "nothing to look for"),
        ({"text": " \n\t "}, "nothing to look for"),
        ({"text": "x" * (1 << 20)}, "a text has 1,048,576 characters; the limit is 1,000"),
        ({"text": "a", "without": "x" * (1 << 20)}, "a text has 1,048,576 characters"),
        ({"text": ["a"]}, "text has the wrong type"),
        ({"text": "a", "count": 0}, "the number of results must be from 1 to 200, not 0"),
        ({"text": "a", "count": 10**9}, "the number of results must be from 1 to 200"),
        ({"text": "a", "count": "9"}, "count has the wrong type"),
        ({"text": "a", "image": one, "text_weight": float("nan")}, "a weight must be a number"),
        ({"text": "a", "image": one, "text_weight": 1e300}, "a weight must be a number"),
        ({"text": "a", "without": "a", "without_weight": 1.0}, "nothing is left to look for"),
        ([], "the request is not a JSON object"),
    ]


def hostile_classifications(jpg):
    one = text_of(jpg)
    return [
        ({"names": ["a"]}, "no image to classify"),
        ({"image": one, "names": []}, "no class names"),
        ({"image": one, "names": ["", " "]}, "no class names"),
        ({"image": one, "names": "cat"}, "names must be a list of strings"),
        ({"image": one, "names": ["a", 5]}, "names must be a list of strings"),
        ({"image": one, "names": ["a"] * (MAX_CLASSES + 1)}, "1,001 classes; at most 1,000"),
        ({"image": one, "names": ["x" * 2000]}, "a text has 2,000 characters"),
        ({"image": one, "names": ["a"], "prompt": "no place"}, r"the prompt has no \{\}"),
        ({"image": text_of(b"GIF89a"), "names": ["a"], "prompt": "{}"}, "does not decode"),
    ]


def check_fault(answer, message, expected=400):
    status, fields = answer
    assert status == expected
    assert fields.keys() == {"error"}
    assert re.search(message, fields["error"]), fields
    assert "\n" not in fields["error"]
    assert len(fields["error"]) < 200


def test_hostile_requests_are_one_line_and_the_server_goes_on(page_address, held_out_images):
    for fields, message in hostile_searches(held_out_images[0]):
        check_fault(ask(page_address, "/search", fields), message)
    for fields, message in hostile_classifications(held_out_images[0]):
        check_fault(ask(page_address, "/classify", fields), message)
    for body in (b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"text": ' + b"9" * 10_000 + b"}"):
        check_fault(ask(page_address, "/search", body=body), "not a JSON object|not what it should")
    for body in (b"[" * 500_000, b'{"text": [' + b"{}," * 500_000 + b"{}]}"):
        check_fault(ask(page_address, "/search", body=body), "the request holds too many values")
    # A form of another site could send this.
    answer = ask(page_address, "/search", {"text": "a"}, kind="text/plain")
    check_fault(answer, "application/json", 415)
    assert ask(page_address, "/search", {"text": "a red ring"})[0] == 200


def test_damaged_embeddings_are_not_found(page_address, page_search, monkeypatch):
    broken = np.array(page_search.index.embeddings)
    broken[1:] = np.nan
    monkeypatch.setattr(page_search.index, "embeddings", broken)
    status, answer = ask(page_address, "/search", {"text": "a red ring"})
    assert (status, places(answer)) == (200, [0])


def test_missing_libraries_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(InputError, match=r"pip install 'align-keras\[page\]'"):
        page_guard.require_starlette()


def test_odd_texts_are_searched(page_address):
    for text in ("\ud800", "\u202e\x00\x1b[2J", "🙂" * 900, "' OR 1=1 --", "<b>", "a" * 1000):
        assert ask(page_address, "/search", {"text": text, "count": 1})[0] == 200


def test_bombs_take_no_memory(page_address, bomb):
    assert len(bomb) < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_fault(
        ask(page_address, "/search", {"image": text_of(bomb)}), "the image: has too many pixels"
    )
    too_large = b'{"image": "' + b"A" * (40 << 20) + b'"}'
    # The server may close the connection before everything is sent.
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        check_fault(ask(page_address, "/search", body=too_large), "the request is too large", 413)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert grown < 300, f"{grown} MiB"
    assert ask(page_address, "/search", {"text": "a red ring"})[0] == 200


def test_a_failure_of_the_server_is_one_line(page_address, page_search, monkeypatch, caplog):
    monkeypatch.setattr(page_search, "find_all", lambda *_: 1 / 0)
    status, answer = ask(page_address, "/search", {"text": "a"})
    assert status == 500
    assert answer == {"error": "the server failed on this request; its log says why"}
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert ask(page_address, "/search", {"text": "a"})[0] == 200


def test_many_ask_at_a_time(page_address, held_out_images):
    fields = [{"text": f"photo {number % 4}", "count": 5} for number in range(20)]
    fields += [{"image": text_of(held_out_images[number]), "count": 5} for number in range(20)]
    alone = [places(ask(page_address, "/search", one)[1]) for one in fields]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda one: places(ask(page_address, "/search", one)[1]), fields))
    assert together == alone


def test_a_port_that_is_taken_is_one_line(page_address):
    port = int(page_address.rpartition(":")[2])
    with pytest.raises(InputError, match="cannot listen on .*: Address already") as caught:
        listening.listen("127.0.0.1", port)
    free = re.fullmatch(r"give another <port>, such as (\d+), which is free", caught.value.remedy)
    listening.listen("127.0.0.1", int(free[1])).close()
    with pytest.raises(InputError, match="cannot listen on 192.0.2.1:0: ") as caught:
        listening.listen("192.0.2.1", 0)  # no machine has this address
    assert caught.value.remedy == "give another <host> or <port>"
    with pytest.raises(InputError, match="must be from 0 to 65,535, not 99999") as caught:
        listening.listen("127.0.0.1", 99_999)
    assert caught.value.setting == "port"
