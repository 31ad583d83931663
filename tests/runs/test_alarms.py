import math
import re

import pytest

from align_keras.runs import alarms
from align_keras.runs.mixed_sources import Used

GUESSING = 2 * math.log(128)


def lines_of(*metrics, every=100):
    watch = alarms.Alarms(128, 0.005)
    return [line for n, one in enumerate(metrics, 1) for line in watch(n * every, one)]


def test_a_sound_run_has_none():
    falling = [
        {"loss": loss, "loss_i2t": loss / 2, "loss_t2i": loss / 2, "temperature": 0.1 - n / 200}
        for n, loss in enumerate((10.5, 8.0, 5.0, 2.0, 0.5))
    ]
    assert not lines_of(*falling)
    # A run at the loss of guessing has no warnings at first, nor has a run without pairs.
    assert not lines_of(*[{"loss": GUESSING}] * 5)
    assert not lines_of({"accuracy": 0.5})


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ([{"loss": 20.0}], r"step 100: the first loss, 20.0, is far above random guessing \(9.7\)"),
        (
            [{"loss": GUESSING * 1.01}] * 9,
            r"step 600: the loss has stayed at random guessing \(9.70\) since step 100: check the "
            "learning rate",
        ),
        (
            [{"loss": GUESSING, "gradient_norm": 1e-5}] * 9,
            "step 600: .* all embeddings may be equal",
        ),
        (
            [{"loss": 3.0, "loss_i2t": 0.5, "loss_t2i": 2.5}] * 2,
            r"image to text is far ahead of text to image \(losses 0.50 and 2.50\)",
        ),
        (
            [{"loss": 5.0, "repeated_captions": 0.5}, {"loss": 5.0, "repeated_captions": 0.625}],
            "step 200: 62% of a batch's captions repeat another caption.*: look at the most",
        ),
        ([{"loss": 0.1, "temperature": 0.00501}], "the temperature is at its floor, 0.005"),
        (
            [{"loss": 9.0, "temperature": 0.1}, {"loss": 9.0, "temperature": 0.16}],
            "step 200: the temperature has risen from 0.1 to 0.16",
        ),
    ],
)
def test_each_is_said_once_with_what_to_look_at(metrics, line):
    (found,) = lines_of(*metrics, *metrics[-1:])
    assert re.search(line, found), found


def test_many_epochs():
    assert alarms.of_epochs(1_000, 100, [Used("a", 100_000, 100.0)]) == []
    assert alarms.of_epochs(2_000, 100, [Used("a", 200_000, 200.0)]) == [
        "2,000 steps of 100 pairs are 200 epochs of the 1,000 training pairs and will overfit; "
        "use fewer steps or more data"
    ]
    used = [Used("a/*", 150_000, 2.0), Used("b/*", 50_000, 500.0)]
    assert alarms.of_epochs(2_000, 100, used) == [
        "2,000 steps of 100 pairs are 500 epochs of the 100 b/* pairs and will overfit; "
        "use fewer steps or more data"
    ]
