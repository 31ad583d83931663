import json
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small_indexes import build, write_photos

from align_keras.data import examples
from align_keras.errors import InputError
from align_keras.evaluation import fingerprint
from align_keras.search import indexing
from align_keras.search.image_index import ImageIndex
from align_keras.search.image_search import ImageSearch, Query


@pytest.fixture
def photos(tmp_path, held_out_images):
    return write_photos(tmp_path / "photos", held_out_images)


def test_a_folder_is_embedded_and_what_is_unreadable_listed(tiny_model, photos, tmp_path):
    header, index = build(tiny_model, photos, tmp_path / "index", thumbnail_size=10)
    names = [index.label(place).name for place in range(len(index))]
    assert len(names) == header.count == 30
    expected = tiny_model.encode_images([photos / name for name in names])
    np.testing.assert_allclose(index.embeddings, expected, atol=1e-5)
    lines = (tmp_path / "index" / "unreadable.jsonl").read_text().splitlines()
    reasons = {row["name"]: row["reason"] for row in map(json.loads, lines)}
    assert reasons == {
        "bad.jpg": "does not decode",
        "empty.PNG": "empty",
        "gone.jpg": "no such file",
        "other.TIFF": ".tiff is an unsupported format",
        "pipe.jpg": "not a file",
    }
    places, scores = index.search(expected, 3)
    assert places[:, 0].tolist() == list(range(30))
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-5)
    (tmp_path / "thumbnail.jpg").write_bytes(index.thumbnail(29))
    with Image.open(tmp_path / "thumbnail.jpg") as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) == 10


def test_half_precision_takes_half_and_finds_the_same(tiny_model, photos, tmp_path):
    _, whole = build(tiny_model, photos, tmp_path / "whole")
    _, half = build(tiny_model, photos, tmp_path / "half", precision="float16", thumbnail_size=0)
    size = (tmp_path / "whole" / "embeddings.bin").stat().st_size
    assert 2 * (tmp_path / "half" / "embeddings.bin").stat().st_size == size
    np.testing.assert_allclose(half.embeddings, whole.embeddings, atol=1e-3)
    assert half.thumbnail(0) == b""


def check_begun_otherwise(setting, before, model, photos, output, precision="float32"):
    with pytest.raises(InputError) as caught:
        build(model, photos, output, precision=precision)
    assert caught.value.setting == setting
    assert caught.value.problem == f"the index was begun with {before}"
    assert caught.value.place.file == str(output)


def test_an_index_of_before_the_towers_options_is_still_the_models(tiny_model, photos, tmp_path):
    build(tiny_model, photos, tmp_path / "index")
    path = tmp_path / "index" / "index.json"
    header = json.loads(path.read_text())
    header["fingerprint"] = fingerprint._digests(tiny_model)[1]
    path.write_text(json.dumps(header))
    (tmp_path / "index" / "checksums.json").unlink()
    source = examples.open_images(photos)
    assert indexing.build_index(tiny_model, source, tmp_path / "index")[1] == 0
    assert ImageSearch(tiny_model, ImageIndex(tmp_path / "index")).find(Query("a ring"), 3)


def test_two_runs_do_not_write_one_index(tiny_model, photos, tmp_path):
    source = examples.open_images(photos)

    def build_too(*_):
        with pytest.raises(InputError, match="another run is writing it") as caught:
            build(tiny_model, photos, tmp_path / "index")
        assert caught.value.place.file == str(tmp_path / "index")

    indexing.build_index(tiny_model, source, tmp_path / "index", committed=build_too)
    assert not (tmp_path / "index" / "lock").exists()


def test_a_model_that_has_diverged_is_reported(tiny_model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        tiny_model, "encode_images", lambda images, *_, **__: np.full((len(images), 8), np.nan)
    )
    with pytest.raises(InputError, match="the model has diverged") as caught:
        build(tiny_model, photos, tmp_path / "index")
    assert caught.value.setting == "model"


def test_changes_are_noticed(tiny_model, photos, tmp_path):
    output = tmp_path / "index"
    build(tiny_model, photos, output)
    check_begun_otherwise(
        "precision", "float32, not float16", tiny_model, photos, output, "float16"
    )
    assert not (output / "lock").exists()
    weight = tiny_model.backbone.image_projection.weights[0]
    before = weight.numpy()
    weight.assign(before + 1e-3)
    check_begun_otherwise("model", "another model", tiny_model, photos, output)
    weight.assign(before)
    time.sleep(0.01)
    (photos / "00.jpg").write_bytes((photos / "03.jpg").read_bytes())
    changed = "other images, or some were added, removed or rewritten since"
    check_begun_otherwise("images", changed, tiny_model, photos, output)
    header, index = build(tiny_model, photos, output, restart=True)
    assert header.count == 30
    np.testing.assert_array_equal(index.embeddings[0], index.embeddings[1])


def test_large_indexes_have_lists(tiny_model, photos, tmp_path):
    header, index = build(tiny_model, photos, tmp_path / "index", exact_below=30, num_lists=5)
    assert header.lists == 5
    assert index.is_approximate
    queries = np.asarray(index.embeddings)
    whole = ImageIndex(tmp_path / "index", exact=True)
    assert not whole.is_approximate
    for count in (5, 30):
        places, _ = index.search(queries, count, probes=5)
        exact, _ = whole.search(queries, count)
        np.testing.assert_array_equal(places, exact)
    places, scores = index.search(queries, 30, probes=1)
    assert places.min() == -1
    assert np.isneginf(scores[places == -1]).all()
    # The lists are built again, but no image is embedded again.
    source = examples.open_images(photos)
    before = (tmp_path / "index" / "embeddings.bin").stat().st_ino
    for lists, exact_below in ((3, 30), (0, 31)):
        header, embedded = indexing.build_index(
            tiny_model, source, tmp_path / "index", exact_below=exact_below, num_lists=lists
        )
        assert (header.lists, header.count, embedded) == (lists, 30, 0)
        index = ImageIndex(tmp_path / "index")
        places, _ = index.search(queries, 30, probes=5)
        np.testing.assert_array_equal(places, exact)
    assert (tmp_path / "index" / "embeddings.bin").stat().st_ino == before
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert not names & {"centroids.bin", "lists.bin", "progress.json", "lock"}


def test_faiss_is_not_needed_for_exact_searches(tiny_model, photos, tmp_path, monkeypatch):
    build(tiny_model, photos, tmp_path / "index", exact_below=30, num_lists=5)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert len(ImageIndex(tmp_path / "index", exact=True)) == 30
    with pytest.raises(InputError, match=r"need faiss; pip install .*\[search\]") as caught:
        ImageIndex(tmp_path / "index")
    assert caught.value.setting == "exact"
    with pytest.raises(InputError, match=r"need faiss; pip install .*\[search\]") as caught:
        build(tiny_model, photos, tmp_path / "other", exact_below=30)
    assert caught.value.setting == "exact_below"


def test_other_peoples_folders_are_left_alone(tiny_model, photos, tmp_path):
    with pytest.raises(InputError, match="it holds 00.jpg, which is not part of") as caught:
        build(tiny_model, photos, photos)
    assert caught.value.setting == "output"
    assert caught.value.place.file == str(photos)


@pytest.mark.parametrize(
    "files",
    [
        {"embeddings.bin": b"somebody's"},
        {"index.json": b'{"title": "a page"}', "labels.bin": b"somebody's"},
    ],
)
@pytest.mark.parametrize("restart", [False, True])
def test_files_that_are_called_as_an_indexs_are_left_alone(
    restart, files, tiny_model, photos, tmp_path
):
    output = tmp_path / "index"
    output.mkdir()
    for name, data in files.items():
        (output / name).write_bytes(data)
    with pytest.raises(InputError, match="an index's names that are not an index") as caught:
        build(tiny_model, photos, output, restart=restart)
    assert caught.value.setting == "output"
    assert {path.name: path.read_bytes() for path in output.iterdir()} == files
