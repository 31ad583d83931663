import itertools
import json

import numpy as np
import pytest

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation.bootstrap import hits_of
from align_keras.evaluation.metrics import chief
from align_keras.evaluation.tasks.winoground import Winoground, read_rows, scores_of


@pytest.fixture
def rows(tmp_path, held_out_images):
    """Winoground's layout with six rows; an image of the last row is missing."""
    (tmp_path / "images").mkdir()
    found = []
    for number in range(6):
        names = [f"ex_{number}_img_{side}" for side in (0, 1)]
        for side, name in enumerate(names):
            if (number, side) != (5, 1):
                image = held_out_images[2 * number + side]
                (tmp_path / "images" / f"{name}.png").write_bytes(image)
        texts = [f"ring {number} on a star", f"star on a ring {number}"]
        found.append({"id": number, "image_0": names[0], "image_1": names[1]})
        found[-1] |= {"caption_0": texts[0], "caption_1": texts[1], "tag": "Object"}
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return tmp_path


def test_scores_are_those_of_every_comparison_by_hand(tiny_model, rows):
    task = Winoground(data=str(rows))
    result = task.run(tiny_model, task.open(), rows)
    right = dict.fromkeys(("text_score", "image_score", "group_score"), 0)
    for number in range(5):
        files = [rows / "images" / f"ex_{number}_img_{side}.png" for side in (0, 1)]
        texts = [f"ring {number} on a star", f"star on a ring {number}"]
        s = tiny_model.encode_texts(texts) @ tiny_model.encode_images(files).T
        text = all(s[own, own] > s[1 - own, own] for own in (0, 1))
        image = all(s[own, own] > s[own, 1 - own] for own in (0, 1))
        right["text_score"] += text
        right["image_score"] += image
        right["group_score"] += text and image
    assert result.metrics == {name: count / 5 for name, count in right.items()}
    assert result.title == "winoground: 5 of 6 rows"
    assert {name: own.mean for name, own in hits_of(result.outcomes).items()} == result.metrics
    assert chief(result.metrics) == list(result.metrics)


def test_chance_is_the_share_of_all_orders_and_a_tie_is_wrong():
    orders = np.array(list(itertools.permutations(range(4)))).reshape(-1, 2, 2)
    found = {name: own.mean() for name, own in scores_of(orders).items()}
    assert found == pytest.approx({"text_score": 1 / 4, "image_score": 1 / 4, "group_score": 1 / 6})
    assert not any(own.any() for own in scores_of(np.ones((1, 2, 2))).values())


def test_what_is_missing_or_no_row_is_named(rows):
    with pytest.raises(MissingInputError, match=r"images: no examples\.jsonl"):
        Winoground(data=str(rows / "images")).open()
    with pytest.raises(MissingInputError, match="none of Winoground's images, such as ex_0_img_0"):
        Winoground(data=str(rows / "examples.jsonl"), images=str(rows)).open()
    (rows / "other.jsonl").write_text('{"image_0": "a"}\n')
    with pytest.raises(InputError, match=r"other\.jsonl line 1: no row of Winoground"):
        read_rows(rows / "other.jsonl")
