import json
import os
import shutil

import pytest
from bombs import make_bomb
from page_client import text_of
from PIL import Image

from align_keras.search.image_search import Query
from align_keras.search.originals import Originals


@pytest.fixture(scope="module")
def bomb():
    return make_bomb()


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
        # Chromium's sandbox needs rights that root does not have in a container.
        launched = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture
def photos_of_page(page_search):
    """The folder of the images of ``page_search``."""
    return page_search.index.directory.parent / "photos"


@pytest.fixture
def tab(browser, page_address):
    """A page in a new browser context; the test fails on requests to other hosts and on errors."""
    context = browser.new_context()
    tab = context.new_page()
    tab.set_default_timeout(60_000)  # a busy machine starves the browser
    problems = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: problems.append(dialog.message) or dialog.dismiss())
    tab.on(
        "request",
        lambda request: (
            problems.append(request.url)
            if not request.url.startswith((page_address, f"blob:{page_address}"))
            else None
        ),
    )
    tab.goto(page_address)
    yield tab
    context.close()
    assert not problems


def image_file(data, name="own.jpg"):
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


def shown(tab):
    """The texts of the cards, after the answer has arrived."""
    tab.wait_for_selector("#search-status:has-text('images in')")
    return tab.locator("#matches .name").all_text_contents()


def test_a_sentence_is_searched_in_a_browser(tab, page_search):
    tab.wait_for_selector("#about:has-text('30 images, exact search')")
    assert tab.inner_text("#search-status") == "Type a sentence, drop an image, or both."
    tab.fill("#text", "a red ring")
    tab.select_option("#count", "48")
    tab.keyboard.press("Enter")
    expected = page_search.find(Query("a red ring"), 30)
    assert shown(tab) == [match.name for match in expected]
    assert tab.locator("#matches .score").first.inner_text() == f"{expected[0].score:.3f}"
    # All thumbnails are loaded, and a name that looks like HTML is shown as text.
    first = tab.locator("#matches img").first
    first.wait_for()
    tab.wait_for_function("document.querySelector('#matches img').naturalWidth > 0")
    assert tab.locator("#matches .name", has_text="onerror=alert(1)").count() == 1


def test_an_image_is_searched_and_changed_by_words(tab, page_search, held_out_images):
    assert tab.locator("#weight").is_hidden()
    tab.set_input_files("#search-drop input", image_file(held_out_images[7]))
    assert shown(tab)[0] == "07.jpg"
    tab.fill("#text", "a blue star")
    tab.locator("#weight").fill("-1.5")
    tab.fill("#without", "green")
    tab.locator("#without-weight").fill("0.5")
    tab.click("#search-form button[type=submit]")
    query = Query("a blue star", held_out_images[7], -1.5, "green", 0.5)
    expected = [match.name for match in page_search.find(query, 24)]
    tab.wait_for_function(
        "name => document.querySelector('#matches .name').textContent === name", arg=expected[0]
    )
    assert shown(tab) == expected
    tab.click("#search-drop button:has-text('Remove')")
    assert tab.locator("#weight").is_hidden()
    # A found image becomes the next query.
    tab.fill("#text", "")
    tab.fill("#without", "")
    name = tab.locator("#matches .name").nth(4).inner_text()
    tab.locator("#matches .picture").nth(4).click()
    tab.wait_for_selector(f"#search-drop .name:has-text('{name}')")
    tab.wait_for_function(
        "name => document.querySelector('#matches .name').textContent === name", arg=name
    )


def drop_file(tab, bytes_in_javascript, name):
    transfer = tab.evaluate_handle(
        f"""name => {{
            const transfer = new DataTransfer();
            const bytes = {bytes_in_javascript};
            transfer.items.add(new File([bytes], name, {{ type: "image/jpeg" }}));
            return transfer;
        }}""",
        name,
    )
    tab.dispatch_event("#search-drop", "drop", {"dataTransfer": transfer})


def test_a_dropped_file_is_taken(tab, held_out_images):
    data = json.dumps(text_of(held_out_images[11]))
    drop_file(
        tab, f"Uint8Array.from(atob({data}), (letter) => letter.charCodeAt(0))", "dropped.jpg"
    )
    assert shown(tab)[0] == "11.jpg"


def test_errors_are_one_line_in_the_page(tab, held_out_images, bomb):
    fault = tab.locator("#search-status.fault")
    tab.click("#search-form button[type=submit]")
    assert fault.inner_text() == "Type a sentence or drop an image."
    tab.set_input_files("#search-drop input", image_file(held_out_images[0][:200]))
    tab.wait_for_selector("#search-status.fault:has-text('the image: does not decode')")
    assert tab.locator("#matches li").count() == 0
    tab.set_input_files("#search-drop input", image_file(bomb, "bomb.png"))
    tab.wait_for_selector("#search-status.fault:has-text('too many pixels')")
    # The file is made in the browser, since sending so many bytes to it takes seconds.
    drop_file(tab, "new Uint8Array(21 << 20)", "large.jpg")
    tab.wait_for_selector("#search-status.fault:has-text('the image has more than 20 MiB')")
    tab.click("#search-drop button:has-text('Remove')")
    tab.fill("#text", "x" * 5000)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#search-status.fault:has-text('a text has 5,000 characters')")
    tab.fill("#text", "a red ring")
    tab.keyboard.press("Enter")
    assert len(shown(tab)) == 24


def test_classes_are_typed_and_compared(tab, page_search, held_out_images):
    tab.click("#tab-classify")
    assert tab.locator("#search").is_hidden()
    tab.click("#classify-form button[type=submit]")
    tab.wait_for_selector("#classify-status.fault:has-text('no image to classify')")
    tab.set_input_files("#classify-drop input", image_file(held_out_images[0]))
    tab.fill("#names", "ring, cross\nstar\n\n")
    tab.fill("#prompt", "one {}")
    tab.click("#classify-form button[type=submit]")
    tab.wait_for_selector("#classify-status:has-text('3 classes in')")
    expected = page_search.classify(held_out_images[0], ["ring", "cross", "star"], "one {}")
    assert tab.locator("#classes .class").all_text_contents() == list(expected)
    shares = tab.locator("#classes .value").all_text_contents()
    assert shares == [f"{100 * share:.1f} %" for share in expected.values()]


def test_two_browsers_do_not_disturb_each_other(browser, page_address, page_search):
    contexts = [browser.new_context() for _ in range(2)]
    tabs = [context.new_page() for context in contexts]
    texts = ("a red ring", "a blue star")
    for tab, text in zip(tabs, texts, strict=True):
        tab.goto(page_address)
        tab.fill("#text", text)
    for tab in tabs:
        tab.keyboard.press("Enter")
    for tab, text in zip(tabs, texts, strict=True):
        assert shown(tab) == [match.name for match in page_search.find(Query(text))]
    for context in contexts:
        context.close()


def test_words_to_take_away_are_a_query(tab, page_search):
    tab.fill("#without", "a red ring")
    tab.keyboard.press("Enter")
    expected = page_search.find(Query(without="a red ring"))
    assert shown(tab) == [match.name for match in expected]


def test_a_phone_shows_results_before_options_and_the_image_beside_them(tab, held_out_images):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.fill("#text", "in blue")
    tab.set_input_files("#search-drop input", image_file(held_out_images[7]))
    shown(tab)
    tab.locator("#asked img").wait_for()
    assert tab.inner_text("#asked").split("\n") == ["own.jpg", "+ in blue"]

    def top(selector):
        return tab.locator(selector).first.bounding_box()["y"]

    places = [top(name) for name in ("#text", "#asked", "#search-status", "#matches", "#options")]
    assert places == sorted(places)
    # The page is not wider than the screen, and one tap leads to the options.
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.click(".to-options")
    assert 0 <= top("#options") < 844
    tab.set_viewport_size({"width": 1280, "height": 844})
    assert top("#options") < top("#matches")


def test_a_result_opens_at_full_size_where_its_file_is_known(tab, page_search, photos_of_page):
    tab.fill("#text", "a red ring")
    tab.keyboard.press("Enter")
    shown(tab)
    assert tab.locator("#matches .full").count() == 0
    page_search.originals = Originals(photos_of_page)
    try:
        tab.keyboard.press("Enter")
        first = page_search.find(Query("a red ring"))[0]
        link = tab.locator("#matches .full").first
        assert link.get_attribute("href") == f"original/{first.place}"
        with tab.context.expect_page() as opened:
            link.click()
        image = opened.value.locator("img")
        image.wait_for()
        size = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        with Image.open(photos_of_page / first.name) as original:
            assert size == list(original.size)
    finally:
        page_search.originals = None
