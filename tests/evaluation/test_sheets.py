import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from align_keras import figures
from align_keras.evaluation import sheets
from align_keras.preprocessing import thumbnails

LONG = "a dog on a wet beach, " * 8 + "for $5 or $6"


@pytest.fixture
def drawn(monkeypatch):
    """Collects the drawn figures instead of writing files."""
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, path: found.append(figure))
    return found


def texts_of(figure):
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts]


def shapes_of(figure):
    """The ratio of height to width of each picture."""
    (axes,) = figure.axes
    extents = [image.get_extent() for image in axes.images]
    return [abs(top - bottom) / (right - left) for left, right, bottom, top in extents]


def green_frames(figure):
    green = to_rgb("tab:green")
    return [box for box in figure.axes[0].patches if box.get_edgecolor()[:3] == green]


def assert_texts_are_apart(figure):
    """Checks that no text overlaps another one or extends beyond the sheet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:place])


def pictures(*shapes):
    return [np.full((*shape, 3), 0.5) for shape in shapes]


def test_retrieved_images_keep_their_shape_and_the_right_one_is_framed(drawn):
    images = [pictures((40, 80), (80, 40)), pictures((50, 50), (10, 90))]
    right = np.array([[True, False], [False, False]])
    scores = np.array([[0.9, 0.8], [0.7, 0.6]])
    sheets.draw_retrievals("sheet.png", [LONG, "b" * 90], images, right, scores, [0, 811], 1_000)
    np.testing.assert_allclose(shapes_of(drawn[0])[:4], [0.5, 2, 1, 1 / 9])
    # One green frame around a picture, and one in the legend.
    assert len(green_frames(drawn[0])) == 2
    texts = texts_of(drawn[0])
    assert "its image: rank 1 of 1,000" in texts
    assert "its image: rank 812 of 1,000" in texts
    assert {"0.90", "0.80", "0.70", "0.60"} <= set(texts)
    assert texts[-1].startswith("green frame: the caption's own image;")
    # Captions are complete.
    assert " ".join(texts).count("wet beach") == 8
    assert r"\$5 or \$6" in " ".join(texts)
    assert "".join(texts).count("b" * 29) == 3
    assert_texts_are_apart(drawn[0])


def test_a_sheet_without_right_answers_does_not_explain_green(drawn):
    none = np.zeros((1, 2), bool)
    sheets.draw_retrievals("sheet.png", ["a"], np.zeros((1, 2, 8, 8, 3)), none, np.zeros((1, 2)))
    assert texts_of(drawn[0])[-1] == "number: cosine similarity, best first"
    assert not green_frames(drawn[0])


def test_an_image_stands_beside_the_captions_that_it_finds(drawn):
    right = np.array([[False, True]])
    captions = [[LONG, "a red ball"]]
    sheets.draw_captions(
        "sheet.png", pictures((30, 60)), captions, right, np.array([[0.5, 0.4]]), [1], 5_000
    )
    assert shapes_of(drawn[0]) == [pytest.approx(0.5)]
    texts = texts_of(drawn[0])
    assert " ".join(texts).count("wet beach") == 8
    assert "its caption: rank 2 of 5,000" in texts
    (green,) = [text for text in drawn[0].axes[0].texts if text.get_color() == "tab:green"]
    assert green.get_text() == "a red ball"
    assert_texts_are_apart(drawn[0])


def test_the_same_words_of_another_image_are_marked(drawn):
    captions = [["a red ball", "a red ball", "a blue ball"]]
    right, scores = np.array([[False, True, False]]), np.array([[0.5, 0.5, 0.4]])
    sheets.draw_captions("sheet.png", pictures((30, 60)), captions, right, scores, [1], 50)
    texts = texts_of(drawn[0])
    for shown in ("a red ball", "a red ball (of another image)", "a blue ball"):
        assert texts.count(shown) == 1, shown


def test_predicted_classes_have_their_whole_names(drawn):
    names = ["a dog", "the class with a rather long name"]
    sheets.draw_predictions("sheet.png", pictures((20, 40), (40, 20)), names, ["a dog", "a cat"])
    assert shapes_of(drawn[0]) == [pytest.approx(0.5), pytest.approx(2)]
    texts = drawn[0].axes[0].texts
    wrong = [text.get_text() for text in texts if text.get_color() == "tab:red"]
    assert " ".join(wrong) == "the class with a rather long name taken for a cat"
    assert texts[-1].get_text().startswith("green: right")


def test_small_pixels_keep_the_shape_of_an_image():
    encoded = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.new("RGB", (600, 300)).save(encoded, "JPEG", exif=exif)
    assert thumbnails.small_pixels(encoded.getvalue(), 100).shape == (100, 50, 3)
