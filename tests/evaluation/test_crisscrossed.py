import gzip
import json

import numpy as np
import pytest
from conftest import SHARED
from scipy import stats

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation import crisscrossed

METADATA = SHARED / "data" / "metadata"


@pytest.fixture
def published():
    if not METADATA.exists():
        pytest.skip(f"no Crisscrossed Captions at {METADATA}; written ones are read below")
    return METADATA / "cxc"


def test_spearman_with_ties_agrees_with_scipy():
    rng = np.random.default_rng(0)
    for size in (5, 40, 500):
        x, y = rng.integers(0, 12, size), rng.normal(size=size).round(1)
        expected = stats.spearmanr(x, y).statistic
        assert crisscrossed.spearman(x, y) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(crisscrossed.spearman([1, 1], [1, 2]))


def test_files_are_read_plain_and_compressed(tmp_path):
    text = (
        "caption,image,agg_score,sampling_method\n"
        "COCO_val2014:sentid:732091,COCO_val2014_000000365325.jpg,2.2,c2i_intrasim\n"
        "COCO_val2014:sentid:262300,COCO_val2014_000000369373.jpg,4.97,c2i_original\n"
    )
    (tmp_path / "sits_test.csv").write_text(text)
    with gzip.open(tmp_path / "sits_val.csv.gz", "wt") as file:
        file.write(text)
    for split in ("test", "val"):
        captions, images, scores = crisscrossed.read_judgements(tmp_path, "sits", split)
        assert captions.tolist() == [732091, 262300]
        assert images.tolist() == [365325, 369373]
        assert scores.tolist() == [2.2, 4.97]
    with pytest.raises(MissingInputError, match=r"no sis_test\.csv or sis_test\.csv\.gz") as caught:
        crisscrossed.read_judgements(tmp_path, "sis")
    assert caught.value.place.file == str(tmp_path)
    (tmp_path / "sts_test.csv").write_text(text)
    with pytest.raises(InputError, match="it lacks the columns caption1, caption2") as caught:
        crisscrossed.read_judgements(tmp_path, "sts")
    assert caught.value.place.file == str(tmp_path / "sts_test.csv")
    assert caught.value.problem.endswith("it has caption, image, agg_score, sampling_method")
    (tmp_path / "sts_test.csv").write_bytes(b"caption1,caption2,agg_score\ncaf\xe9,x,1\n")
    with pytest.raises(InputError, match="sts_test.csv: not readable .*utf-8"):
        crisscrossed.read_judgements(tmp_path, "sts")


def test_positives_are_pairs_judged_three_or_more():
    first, second = np.array([7, 7, 8, 9]), np.array([1, 2, 2, 5])
    places = crisscrossed.positive_places(first, second, [3.0, 4.5, 2.9, 5.0], [7, 8, 9], [2, 1])
    assert places == [[0, 1], [], []]


def test_the_bootstrap_takes_half_of_the_queries_and_one_item_each():
    queries = np.repeat(np.arange(200), 3)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=600)
    similarities = scores + rng.normal(size=600)
    mean, deviation = crisscrossed.bootstrap_correlation(queries, similarities, scores, 200)
    assert mean == pytest.approx(crisscrossed.spearman(similarities, scores), abs=0.03)
    # The deviation is that of a correlation over a hundred independent pairs.
    assert deviation == pytest.approx((1 - mean**2) / 100**0.5, rel=0.3)
    shuffled = rng.permutation(600)
    again = crisscrossed.bootstrap_correlation(
        queries[shuffled], similarities[shuffled], scores[shuffled], 200
    )
    assert again == pytest.approx((mean, deviation), abs=0.03)
    assert crisscrossed.bootstrap_correlation(queries, scores, scores, 5) == (1.0, 0.0)
    with pytest.raises(ValueError, match="at least four judged queries, not 3"):
        crisscrossed.bootstrap_correlation([1, 2, 3], [1, 2, 3], [1, 2, 3])


def test_the_published_judgements_give_the_positives_that_others_derive(published):
    captions, images, scores = crisscrossed.read_judgements(published, "sits")
    assert len(scores) == 44_833
    assert len(crisscrossed.read_judgements(published, "sts")[2]) == 44_045
    assert len(crisscrossed.read_judgements(published, "sis")[2]) == 46_719
    with gzip.open(METADATA / "eccv_caption" / "cxc_caption_to_image.json.gz") as file:
        derived = {int(caption): sorted(own) for caption, own in json.load(file).items()}
    image_ids = np.unique(images)
    queries = np.unique(captions)
    places = crisscrossed.positive_places(captions, images, scores, queries, image_ids)
    found = {
        query: image_ids[own].tolist()
        for query, own in zip(queries.tolist(), places, strict=True)
        if own
    }
    assert found == derived
