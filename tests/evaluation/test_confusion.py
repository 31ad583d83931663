import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from align_keras import figures
from align_keras.evaluation import confusion

#: Counts for three classes: a has 4 images, b has 8 and c has none.
SMALL = np.array([[2, 2, 0], [2, 5, 1], [0, 0, 0]])


def large(classes):
    """A confusion matrix and class names; part of every third class is taken for the next class."""
    matrix = np.diag(np.full(classes, 100))
    for place in range(0, classes - 1, 3):
        wrong = 50 - place // 12
        matrix[place, place] -= wrong
        matrix[place, place + 1] += wrong
    return matrix, [f"the class of number {place} with a long name" for place in range(classes)]


@pytest.fixture
def drawn(monkeypatch):
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, path: found.append(figure))
    return found


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_pairs_with_most_images_come_first_then_those_with_the_larger_share():
    assert confusion.most_confused(SMALL, 9) == [(0, 1), (1, 0), (1, 2)]
    assert confusion.most_confused(SMALL, 1) == [(0, 1)]
    assert confusion.most_confused(np.diag([3, 4]), 9) == []


def test_the_most_confused_pairs_are_a_table():
    lines = confusion.format_confused(SMALL, ["ant", "bee", "c" * 40], 3).splitlines()
    assert " ".join(lines[1].split()) == "class most often taken for images share of class"
    assert lines[2].split() == ["ant", "bee", "2", "50.0%"]
    assert lines[4].split() == ["bee", "c" * 27 + "…", "1", "12.5%"]
    assert confusion.format_confused(np.diag([3, 4]), ["a", "b"]) == ""


def test_few_classes_are_all_drawn_in_per_cent(drawn):
    confusion.draw_confusion("unused.png", SMALL, ["ant", "bee", "$cat"])
    axes, bar = drawn[0].axes
    assert labels(axes.xaxis) == ["ant", "bee", r"\$cat"]
    assert labels(axes.yaxis) == ["ant", "bee"]
    assert axes.get_title() == ""
    shares = {text.get_position(): text.get_text() for text in axes.texts}
    assert shares == {(0, 0): "50%", (1, 0): "50%", (0, 1): "25%", (1, 1): "62%", (2, 1): "12%"}
    drawn[0].canvas.draw()
    assert {"0%", "100%"} <= set(labels(bar.yaxis))


@pytest.mark.parametrize("classes", [80, 500])
def test_of_many_classes_the_most_confused_are_drawn_readably(classes, drawn):
    matrix, names = large(classes)
    confusion.draw_confusion("unused.png", matrix, names)
    axes = drawn[0].axes[0]
    assert axes.get_title() == f"the 40 most confused of {classes} classes"
    tops = labels(axes.xaxis)
    assert tops[-1] == "(others)"
    assert tops[:-1] == labels(axes.yaxis)
    expected = [place for start in range(0, 60, 3) for place in (start, start + 1)]
    assert tops[:-1] == [figures.shorten(names[place], 28) for place in expected]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()).sum(1), 1)
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    drawn[0].draw(renderer)
    for axis in (axes.xaxis, axes.yaxis):
        boxes = [text.get_window_extent(renderer) for text in axis.get_ticklabels()]
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


def test_where_little_is_confused_other_classes_fill_the_picture():
    matrix = np.diag(np.full(60, 5))
    matrix[50, 59] = 1
    found = confusion.classes_to_draw(matrix, 10)
    assert found.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 50, 59]
