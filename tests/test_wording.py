import pytest

from align_keras import wording


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (1, "shard", "1 shard"),
        (0, "image", "0 images"),
        (2_000, "class", "2,000 classes"),
        (1, "class", "1 class"),
        (2, "held-out pair", "2 held-out pairs"),
    ],
)
def test_numbers_of_things(count, noun, expected):
    assert wording.counted(count, noun) == expected


@pytest.mark.parametrize(
    ("count", "seconds", "expected"),
    [
        (5, 12, "0.417 images/s"),
        (5, 1.2, "4.17 images/s"),
        (50, 1.2, "41.7 images/s"),
        (500, 1.2, "417 images/s"),
        (50_000, 1.2, "41,667 images/s"),
        (0, 1.2, "not timed"),
        (5, 0, "not timed"),
    ],
)
def test_speeds_have_three_digits(count, seconds, expected):
    assert wording.rate(count, seconds, "images") == expected
