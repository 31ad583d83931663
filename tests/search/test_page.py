import base64
import concurrent.futures
import contextlib
import functools
import io
import json
import os
import re
import resource
import shutil
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from conftest import TINY_IMAGE_SIZE, TINY_SEQUENCE, build_tiny_model, make_bomb
from PIL import Image

from align_keras import AlignPreprocessor
from align_keras.data import records
from align_keras.data.examples import image_sources
from align_keras.search import indexing, page
from align_keras.search.image_index import ImageIndex
from align_keras.search.image_search import MAX_CLASSES, ImageSearch, Query


@pytest.fixture(scope="module")
def encoded(scene_shards):
    frames = [frame for shard in scene_shards[1] for frame in records.read_frames(shard)]
    return [records.parse_pair(frame)["jpg"] for frame in frames]


@pytest.fixture(scope="module")
def search(tmp_path_factory, pieces, encoded):
    """Thirty scenes; one is called what a page must not take for HTML, one what is no text."""
    folder = tmp_path_factory.mktemp("page")
    preprocessor = AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)
    model = build_tiny_model(preprocessor=preprocessor, vocabulary_size=len(pieces))
    (folder / "photos").mkdir()
    for number, data in enumerate(encoded):
        odd = {3: "<img src=x onerror=alert(1)>", 4: os.fsdecode(b"\xe9")}
        name = odd.get(number, f"{number:02}")
        (folder / "photos" / f"{name}.jpg").write_bytes(data)
    source = image_sources.open_images(folder / "photos")
    indexing.build_index(model, source, folder / "index", thumbnail_size=64)
    return ImageSearch(model, ImageIndex(folder / "index"))


@pytest.fixture(scope="module")
def address(search):
    """A page that is served while the tests run."""
    with page.listen("127.0.0.1", 0) as listener:
        server = page.build_server(page.build_page(search, hosts=("127.0.0.1",)))
        thread = threading.Thread(target=functools.partial(server.run, sockets=[listener]))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def ask(address, path, fields=None, body=None, kind="application/json", **headers):
    """The status and the JSON of an answer."""
    data = json.dumps(fields).encode() if body is None else body
    request = urllib.request.Request(
        address + path, data, {"Content-Type": kind, **headers}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def text_of(data):
    return base64.b64encode(data).decode()


def places(answer):
    return [match["place"] for match in answer["matches"]]


# === What it answers ===


def test_answers_are_those_of_the_search(address, search, encoded):
    fields = {"text": "a red ring", "image": text_of(encoded[5]), "text_weight": 0.5, "count": 7}
    status, answer = ask(address, "/search", fields)
    assert status == 200
    expected = search.find(Query("a red ring", encoded[5], 0.5), 7)
    assert places(answer) == [match.place for match in expected]
    assert answer["matches"][0]["score"] == pytest.approx(expected[0].score, abs=1e-5)
    status, answer = ask(address, "/search", {"image": text_of(encoded[0])})
    assert len(places(answer)) == 24
    assert answer["matches"][0]["name"] == "00.jpg"
    names = ["ring", " cross\t", "", "ring", "star"]
    fields = {"image": text_of(encoded[0]), "names": names, "prompt": "one {}"}
    status, answer = ask(address, "/classify", fields)
    assert status == 200
    shares = dict(answer["classes"])
    assert shares.keys() == {"ring", "cross", "star"}
    texts = search.model.encode_texts([f"one {name}" for name in shares])
    logits = texts @ search.model.encode_images([encoded[0]])[0] / float(search.model.temperature)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(shares.values()), expected, atol=1e-5)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_it_gives_its_own_files_and_thumbnails_and_no_others(address):
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript")):
        with urllib.request.urlopen(address + path) as answer:
            assert answer.headers.get_content_type() == kind
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    with urllib.request.urlopen(f"{address}/thumbnail/29") as answer:
        assert Image.open(io.BytesIO(answer.read())).format == "JPEG"
    for path in (
        "/thumbnail/30",
        "/thumbnail/-1",
        "/thumbnail/..%2f..%2fetc%2fpasswd",
        "/page.py",
        "/..%2fpage.py",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/index/index.json",
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(address + path)
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
        ({"image": 5}, "image is not what it should be"),
        ({"image": one[:-3]}, "image is not base64"),
        ({}, "nothing to look for"),
        ({"text": ""}, "nothing to look for"),
        ({"text": " \n\t "}, "nothing to look for"),
        ({"text": "x" * (1 << 20)}, "a text of 1,048,576 characters; at most 1,000 are read"),
        ({"text": "a", "without": "x" * (1 << 20)}, "a text of 1,048,576 characters"),
        ({"text": ["a"]}, "text is not what it should be"),
        ({"text": "a", "count": 0}, "the number of results must be from 1 to 200, not 0"),
        ({"text": "a", "count": 10**9}, "the number of results must be from 1 to 200"),
        ({"text": "a", "count": "9"}, "count is not what it should be"),
        ({"text": "a", "image": one, "text_weight": float("nan")}, "a weight must be a number"),
        ({"text": "a", "image": one, "text_weight": 1e300}, "a weight must be a number"),
        ({"text": "a", "without": "a", "without_weight": 1.0}, "nothing is left to look for"),
        ([], "the request is no JSON object"),
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
        ({"image": one, "names": ["x" * 2000]}, "a text of 2,000 characters"),
        ({"image": one, "names": ["a"], "prompt": "no place"}, r"the prompt has no \{\}"),
        ({"image": text_of(b"GIF89a"), "names": ["a"], "prompt": "{}"}, "does not decode"),
    ]


def check_fault(answer, message):
    status, fields = answer
    assert status == 400
    assert fields.keys() == {"error"}
    assert re.search(message, fields["error"]), fields
    assert "\n" not in fields["error"]
    assert len(fields["error"]) < 200


def test_hostile_requests_are_one_line_and_the_server_goes_on(address, encoded):
    for fields, message in hostile_searches(encoded[0]):
        check_fault(ask(address, "/search", fields), message)
    for fields, message in hostile_classifications(encoded[0]):
        check_fault(ask(address, "/classify", fields), message)
    for body in (b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"text": ' + b"9" * 10_000 + b"}"):
        check_fault(ask(address, "/search", body=body), "no JSON object|not what it should be")
    for body in (b"[" * 500_000, b'{"text": [' + b"{}," * 500_000 + b"{}]}"):
        check_fault(ask(address, "/search", body=body), "the request holds too many values")
    # What a form of another site could send, and a name that someone else's server has.
    check_fault(ask(address, "/search", {"text": "a"}, kind="text/plain"), "application/json")
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "evil.example"}))
    assert raised.value.code == 400
    raised.value.close()
    assert ask(address, "/search", {"text": "a red ring"})[0] == 200


def test_damaged_embeddings_are_not_found(address, search, monkeypatch):
    broken = np.array(search.index.embeddings)
    broken[1:] = np.nan
    monkeypatch.setattr(search.index, "embeddings", broken)
    status, answer = ask(address, "/search", {"text": "a red ring"})
    assert (status, places(answer)) == (200, [0])


def test_missing_libraries_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(ValueError, match=r"pip install 'align-keras\[page\]'"):
        page.require_starlette()


def test_odd_texts_are_searched(address):
    for text in ("\ud800", "\u202e\x00\x1b[2J", "🙂" * 900, "' OR 1=1 --", "<b>", "a" * 1000):
        assert ask(address, "/search", {"text": text, "count": 1})[0] == 200


def test_bombs_take_no_memory(address, bomb):
    assert len(bomb) < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_fault(ask(address, "/search", {"image": text_of(bomb)}), "the image: too many pixels")
    too_large = b'{"image": "' + b"A" * (40 << 20) + b'"}'
    # It may hang up before all of that is sent.
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        check_fault(ask(address, "/search", body=too_large), "the request is too large")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert grown < 300, f"{grown} MiB"
    assert ask(address, "/search", {"text": "a red ring"})[0] == 200


def test_a_failure_of_the_server_is_one_line(address, search, monkeypatch, caplog):
    monkeypatch.setattr(search, "find", lambda *_: 1 / 0)
    status, answer = ask(address, "/search", {"text": "a"})
    assert status == 500
    assert answer == {"error": "the server failed on this request; its log says why"}
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert ask(address, "/search", {"text": "a"})[0] == 200


def test_many_ask_at_a_time(address, encoded):
    fields = [{"text": f"photo {number % 4}", "count": 5} for number in range(20)]
    fields += [{"image": text_of(encoded[number]), "count": 5} for number in range(20)]
    alone = [places(ask(address, "/search", one)[1]) for one in fields]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda one: places(ask(address, "/search", one)[1]), fields))
    assert together == alone


# === In a browser ===


def find_browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright; pip install 'align-keras[test]'"
    )
    executable = find_browser()
    if executable is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH, nor in $CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        # Its sandbox wants rights that root does not have in a container.
        launched = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture
def tab(browser, address):
    """A page of a browser of its own; that it loads from elsewhere or fails is a failure."""
    context = browser.new_context()
    tab = context.new_page()
    tab.set_default_timeout(10_000)
    problems = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: problems.append(dialog.message) or dialog.dismiss())
    tab.on(
        "request",
        lambda request: (
            problems.append(request.url)
            if not request.url.startswith((address, f"blob:{address}"))
            else None
        ),
    )
    tab.goto(address)
    yield tab
    context.close()
    assert not problems


def image_file(data, name="own.jpg"):
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


def shown(tab):
    """What the cards show, once the answer is there."""
    tab.wait_for_selector("#search-status:has-text('images in')")
    return tab.locator("#matches .name").all_text_contents()


def test_a_sentence_is_searched_in_a_browser(tab, search):
    assert "30 images, exact search" in tab.inner_text("#about")
    assert tab.inner_text("#search-status") == "Type a sentence, drop an image, or both."
    tab.fill("#text", "a red ring")
    tab.select_option("#count", "48")
    tab.keyboard.press("Enter")
    expected = search.find(Query("a red ring"), 30)
    assert shown(tab) == [match.name for match in expected]
    assert tab.locator("#matches .score").first.inner_text() == f"{expected[0].score:.3f}"
    # All thumbnails are pictures, and a name that looks like HTML is text.
    first = tab.locator("#matches img").first
    first.wait_for()
    tab.wait_for_function("document.querySelector('#matches img').naturalWidth > 0")
    assert tab.locator("#matches .name", has_text="onerror=alert(1)").count() == 1


def test_an_image_is_searched_and_changed_by_words(tab, search, encoded):
    assert tab.locator("#weight").is_hidden()
    tab.set_input_files("#search-drop input", image_file(encoded[7]))
    assert shown(tab)[0] == "07.jpg"
    tab.fill("#text", "a blue star")
    tab.locator("#weight").fill("-1.5")
    tab.fill("#without", "green")
    tab.locator("#without-weight").fill("0.5")
    tab.click("#search-form button[type=submit]")
    query = Query("a blue star", encoded[7], -1.5, "green", 0.5)
    expected = [match.name for match in search.find(query, 24)]
    tab.wait_for_function(
        "name => document.querySelector('#matches .name').textContent === name", arg=expected[0]
    )
    assert shown(tab) == expected
    tab.click("#search-drop button:has-text('Remove')")
    assert tab.locator("#weight").is_hidden()
    # A found image is the next query.
    tab.fill("#text", "")
    tab.fill("#without", "")
    name = tab.locator("#matches .name").nth(4).inner_text()
    tab.locator("#matches .picture").nth(4).click()
    tab.wait_for_selector(f"#search-drop .name:has-text('{name}')")
    tab.wait_for_function(
        "name => document.querySelector('#matches .name').textContent === name", arg=name
    )


def test_a_dropped_file_is_taken(tab, encoded):
    transfer = tab.evaluate_handle(
        """data => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
            return transfer;
        }""",
        text_of(encoded[11]),
    )
    tab.dispatch_event("#search-drop", "drop", {"dataTransfer": transfer})
    assert shown(tab)[0] == "11.jpg"


def test_errors_are_one_line_in_the_page(tab, encoded, bomb):
    fault = tab.locator("#search-status.fault")
    tab.click("#search-form button[type=submit]")
    assert fault.inner_text() == "Type a sentence or drop an image."
    tab.set_input_files("#search-drop input", image_file(encoded[0][:200]))
    tab.wait_for_selector("#search-status.fault:has-text('the image: does not decode')")
    assert tab.locator("#matches li").count() == 0
    tab.set_input_files("#search-drop input", image_file(bomb, "bomb.png"))
    tab.wait_for_selector("#search-status.fault:has-text('too many pixels')")
    tab.set_input_files("#search-drop input", image_file(b"x" * (21 << 20)))
    tab.wait_for_selector("#search-status.fault:has-text('the image has more than 20 MiB')")
    tab.click("#search-drop button:has-text('Remove')")
    tab.fill("#text", "x" * 5000)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#search-status.fault:has-text('a text of 5,000 characters')")
    tab.fill("#text", "a red ring")
    tab.keyboard.press("Enter")
    assert len(shown(tab)) == 24


def test_classes_are_typed_and_compared(tab, search, encoded):
    tab.click("#tab-classify")
    assert tab.locator("#search").is_hidden()
    tab.click("#classify-form button[type=submit]")
    tab.wait_for_selector("#classify-status.fault:has-text('no image to classify')")
    tab.set_input_files("#classify-drop input", image_file(encoded[0]))
    tab.fill("#names", "ring, cross\nstar\n\n")
    tab.fill("#prompt", "one {}")
    tab.click("#classify-form button[type=submit]")
    tab.wait_for_selector("#classify-status:has-text('3 classes in')")
    expected = search.classify(encoded[0], ["ring", "cross", "star"], "one {}")
    assert tab.locator("#classes .class").all_text_contents() == list(expected)
    shares = tab.locator("#classes .value").all_text_contents()
    assert shares == [f"{100 * share:.1f} %" for share in expected.values()]


def test_two_browsers_do_not_disturb_each_other(browser, address, search):
    contexts = [browser.new_context() for _ in range(2)]
    tabs = [context.new_page() for context in contexts]
    texts = ("a red ring", "a blue star")
    for tab, text in zip(tabs, texts, strict=True):
        tab.goto(address)
        tab.fill("#text", text)
    for tab in tabs:
        tab.keyboard.press("Enter")
    for tab, text in zip(tabs, texts, strict=True):
        assert shown(tab) == [match.name for match in search.find(Query(text))]
    for context in contexts:
        context.close()


def test_a_port_that_is_taken_is_one_line(address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(ValueError, match="--host, --port: cannot listen on .*: Address already"):
        page.listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="--port: must be from 0 to 65,535, not 99999"):
        page.listen("127.0.0.1", 99_999)
