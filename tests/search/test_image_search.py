import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from small_indexes import build

from align_keras import figures
from align_keras.errors import InputError
from align_keras.evaluation.composed_search import compose
from align_keras.search.image_index import ImageIndex, model_to_load
from align_keras.search.image_search import ImageSearch
from align_keras.search.match_sheet import draw_matches
from align_keras.search.queries import Query, read_image


@pytest.fixture(scope="module")
def search(tiny_model, scene_photos, tmp_path_factory):
    """A search over fifteen scenes."""
    output = tmp_path_factory.mktemp("search") / "index"
    return ImageSearch(tiny_model, build(tiny_model, scene_photos / "test", output)[1])


def test_queries_are_composed_as_in_the_paper(search, scene_photos):
    names = sorted(
        str(path.relative_to(scene_photos / "test"))
        for path in (scene_photos / "test").rglob("*.jpg")
    )
    images = search.model.encode_images([scene_photos / "test" / name for name in names])
    image = images[3]
    encoded = (scene_photos / "test" / names[3]).read_bytes()
    words, others = search.model.encode_texts(["a red ring", "a blue star"])
    for query, expected in (
        (Query("a red ring"), words),
        (Query(image=encoded), image),
        (Query("a red ring", encoded), compose(image, words)),
        (Query("a red ring", encoded, -1.5), compose(image, words, -1.5)),
        (
            Query("a red ring", without="a blue star", without_weight=0.5),
            compose(words, others, -0.5),
        ),
    ):
        scores = images @ expected
        found = search.find(query, 5)
        assert [match.name for match in found] == [names[row] for row in np.argsort(-scores)[:5]]
        np.testing.assert_allclose(
            [match.score for match in found], np.sort(scores)[::-1][:5], atol=1e-5
        )


@pytest.mark.parametrize(
    ("query", "count", "message"),
    [
        (Query(), 24, "nothing to look for; give a sentence, an image or words"),
        (Query("a"), 0, "the number of results must be from 1 to 200, not 0"),
        (Query("x" * 2000), 24, "a text has 2,000 characters; the limit is 1,000"),
        (Query(image=b"no image"), 24, "the image: does not decode; give a JPEG"),
        (Query(image=b"x" * (21 << 20)), 24, "the image has more than 20 MiB"),
        (Query("a", text_weight=float("nan")), 24, "a weight must be a number from -100 to 100"),
        (Query("a", without="a"), 24, "nothing is left to look for"),
    ],
)
def test_a_query_that_cannot_be_asked_is_one_line(query, count, message, search):
    with pytest.raises(InputError, match=message) as caught:
        search.find(query, count)
    assert "\n" not in str(caught.value)


def test_an_image_file_is_read_or_named(tmp_path, scene_images):
    (tmp_path / "a.jpg").write_bytes(scene_images[0])
    assert read_image(tmp_path / "a.jpg") == scene_images[0]
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    problems = {tmp_path / "none.jpg": "No such file", tmp_path: "a folder", text: "not an image"}
    for path, problem in problems.items():
        with pytest.raises(InputError, match=problem) as caught:
            read_image(path)
        assert caught.value.place.file == str(path)


def test_an_index_is_searched_with_its_model_and_fetches_none(search, tmp_path):
    for path in search.index.directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "checksums.json").unlink()
    header = json.loads((tmp_path / "index.json").read_text())
    strange = {**header, "model": "hf://stranger/model"}
    (tmp_path / "index.json").write_text(json.dumps(strange))
    with pytest.raises(InputError, match="the index names hf://stranger/model; to fetch it"):
        model_to_load(ImageIndex(tmp_path))
    assert model_to_load(ImageIndex(tmp_path), "runs/mine") == "runs/mine"
    (tmp_path / "index.json").write_text(json.dumps({**strange, "model": str(tmp_path)}))
    assert model_to_load(ImageIndex(tmp_path)) == str(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({**strange, "model": "runs/none"}))
    with pytest.raises(InputError, match="the index names runs/none, which does not exist here"):
        model_to_load(ImageIndex(tmp_path))
    (tmp_path / "index.json").write_text(json.dumps({**header, "fingerprint": "0" * 64}))
    with pytest.raises(InputError, match="the index was made with another model"):
        ImageSearch(search.model, ImageIndex(tmp_path))


def test_without_alone_finds_what_is_least_like_its_words(search):
    found = search.find(Query(without="a red ring"), 8)
    (embedded,) = search.embed_texts(["a red ring"])
    scores = -(search.index.embeddings @ embedded)
    np.testing.assert_allclose([match.score for match in found], np.sort(scores)[::-1][:8], 1e-4)
    for weight in (0.0, -1.0):
        with pytest.raises(InputError, match="nothing to look for; give a sentence"):
            search.find(Query(without="a red ring", without_weight=weight))


def test_matches_are_drawn(search, held_out_images, tmp_path, monkeypatch):
    found = search.find(Query("a red ring"), 8)
    bare = dataclasses.replace(found[0], thumbnail=b"", caption="costs $5 or $6 " + "long " * 60)
    path, query = tmp_path / "sheets" / "found.png", held_out_images[0]
    draw_matches(path, "a red ring", [bare, *found], image=query)
    with Image.open(path) as sheet:
        assert sheet.width > 1_000
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
    draw_matches(path, "a red ring", [bare, *found], image=query)
    (axes,) = drawn[0].axes
    # The sheet has the query's image and all images that the index has, and complete captions.
    assert len(axes.images) == 9
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "a red ring"
    assert " ".join(texts).count("long") == 60
    picture = tmp_path / "large.jpg"
    Image.new("RGB", (2000, 10)).save(picture)
    large = dataclasses.replace(found[0], thumbnail=picture.read_bytes())
    with pytest.raises(InputError, match="the thumbnail of .* is too large"):
        draw_matches(tmp_path / "large.png", "a red ring", [large])
