import gzip
import json

import numpy as np
import pytest
from conftest import SHARED

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation.bootstrap import hits_of
from align_keras.evaluation.tasks.sugar_crepe import KINDS, SugarCrepe, read_choices


@pytest.fixture
def choices(tmp_path, held_out_images):
    """Two images with a choice of every kind about each, and a choice about a missing image."""
    (tmp_path / "val2017").mkdir()
    for place, image in enumerate(held_out_images[:2]):
        (tmp_path / "val2017" / f"{place}.jpg").write_bytes(image)
    for place, kind in enumerate(KINDS):
        rows = {
            str(image): {
                "filename": f"{image}.jpg",
                "caption": f"a ring {kind} {image}",
                "negative_caption": f"a ring {kind} {image}" if place == 0 else f"a star {image}",
            }
            for image in range(3)
        }
        text = json.dumps(rows)
        if place % 2:
            (tmp_path / f"{kind}.json").write_text(text)
        else:
            (tmp_path / f"{kind}.json.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path


def test_accuracies_are_those_of_the_similarities(tiny_model, choices):
    task = SugarCrepe(data=str(choices), images=str(choices / "val2017"))
    result = task.run(tiny_model, task.open(), choices)
    images = tiny_model.encode_images([choices / f"val2017/{place}.jpg" for place in range(2)])
    for kind in KINDS[1:]:
        right = tiny_model.encode_texts([f"a ring {kind} {place}" for place in range(2)])
        wrong = tiny_model.encode_texts([f"a star {place}" for place in range(2)])
        expected = np.mean(np.sum(images * right, 1) > np.sum(images * wrong, 1))
        assert result.metrics[f"{kind}_accuracy"] == expected, kind
    assert result.metrics["add_att_accuracy"] == 0.0  # with two equal captions, no choice is right
    own = [result.metrics[f"{kind}_accuracy"] for kind in KINDS]
    assert result.metrics["mean_accuracy"] == pytest.approx(np.mean(own))
    assert result.title == "sugar_crepe: 14 of 21 choices, 2 images"
    hits = hits_of(result.outcomes)
    assert {name: hit.mean for name, hit in hits.items()} == {
        name: value for name, value in result.metrics.items() if name != "mean_accuracy"
    }


def test_what_is_missing_is_named(choices):
    with pytest.raises(MissingInputError, match="COCO's val2017"):
        SugarCrepe(data=str(choices)).open()
    with pytest.raises(MissingInputError, match=r"none of SugarCrepe's images, such as 0\.jpg"):
        SugarCrepe(data=str(choices), images=str(choices)).open()
    (choices / "add_obj.json").write_text("[1]")
    with pytest.raises(InputError, match=r"add_obj\.json: not a file of SugarCrepe"):
        read_choices(str(choices))
    (choices / "add_obj.json").unlink()
    with pytest.raises(MissingInputError, match=r"no add_obj\.json or add_obj\.json\.gz"):
        read_choices(str(choices))


def test_the_published_files_are_read():
    folder = SHARED / "data" / "metadata" / "sugar_crepe"
    if not folder.is_dir():
        pytest.skip("no published files here")
    rows = read_choices(str(folder))
    counts = {kind: sum(row[0] == kind for row in rows) for kind in KINDS}
    assert counts == {
        **{"add_att": 692, "add_obj": 2062, "replace_att": 788, "replace_obj": 1652},
        **{"replace_rel": 1406, "swap_att": 666, "swap_obj": 245},
    }
