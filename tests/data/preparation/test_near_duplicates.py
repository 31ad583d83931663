import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from planted import encode, photographs

from align_keras.data import records
from align_keras.data.examples import open_examples, open_images
from align_keras.data.preparation import filter_page, filters, judging, near_duplicates
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError


@pytest.fixture(scope="module")
def photos():
    return [photo for photo, _ in photographs()]


def resized(photo, factor, quality=85):
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    return encode(image, (round(image.width * factor), round(image.height * factor)), quality)


def test_the_hash_is_that_of_a_plain_cosine_transform(photos):
    image = Image.open(io.BytesIO(photos[0])).convert("L")
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BOX), "float64")
    places = np.arange(32) + 0.5
    low = [
        (pixels * np.outer(np.cos(np.pi / 32 * u * places), np.cos(np.pi / 32 * v * places))).sum()
        for u in range(8)
        for v in range(8)
    ]
    bits = [0] + [int(value > np.median(low[1:])) for value in low[1:]]
    expected = int("".join(map(str, bits)), 2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    found = near_duplicates.perceptual_hash(buffer.getvalue())
    assert found == expected


def test_copies_are_found_at_any_size_and_other_photographs_are_not(photos):
    evaluation = near_duplicates.EvaluationImages(photos[:20])
    for factor, quality in ((1, 95), (1, 50), (0.7, 85), (2, 85)):
        copies = [resized(photo, factor, quality) for photo in photos[:20]]
        found = evaluation.find(copies)
        assert sum(place == own for own, place in enumerate(found)) >= 19
    assert set(evaluation.find(photos[20:])) == {None}
    shown = Image.open(io.BytesIO(evaluation.thumbnail(3)))
    assert max(shown.size) == near_duplicates.THUMBNAIL
    assert evaluation.find([]) == []


def test_embeddings_find_what_the_hash_does_not(photos, build_tiny, preprocessor, tmp_path):
    model = build_tiny(preprocessor=preprocessor, vocabulary_size=len(preprocessor.vocabulary))
    model.save_to_preset(tmp_path / "preset")
    options = {"max_distance": 0, "preset": str(tmp_path / "preset")}
    evaluation = near_duplicates.EvaluationImages(photos[:3], **options, max_cosine=0.999)
    embeddings = model.encode_images(photos)
    cosines = np.asarray(embeddings) @ np.asarray(embeddings[:3]).T
    found = evaluation.find(photos)
    assert [place is not None for place in found] == list(cosines.max(axis=1) > 0.999)
    assert found[:3] == [0, 1, 2]


def test_evaluation_images_come_from_folders_and_shards(photos, tmp_path, caplog):
    (tmp_path / "images" / "below").mkdir(parents=True)
    for index, photo in enumerate(photos[:3]):
        (tmp_path / "images" / "below" / f"{index}.jpg").write_bytes(photo)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "images" / "other.tiff").write_bytes(b"no image")
    with ShardWriter(str(tmp_path / "shards" / "val"), 10) as writer:
        for photo in [*photos[:3], photos[0]]:
            writer.write(records.make_record(photo, "a caption", "key"))
    for place in (tmp_path / "images", f"{tmp_path}/shards/val-*.tfrecord"):
        assert near_duplicates.decodable_images(open_images(place)) == photos[:3]
    assert [one.getMessage() for one in caplog.records] == [
        "2 unreadable evaluation images; their near-duplicates are not dropped"
    ]
    with pytest.raises(InputError, match="none of the images decodes"):
        near_duplicates.EvaluationImages([])


def test_an_evaluation_image_with_megabytes_of_text_is_compared_too(photos, tmp_path):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=True)
    Image.open(io.BytesIO(photos[0])).save(tmp_path / "1.png", pnginfo=texts)
    found = near_duplicates.decodable_images(open_images(tmp_path))
    assert near_duplicates.EvaluationImages(found).find(photos[:1]) == [0]


def test_the_report_shows_a_near_duplicate_beside_what_it_matches(photos, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "copy.jpg").write_bytes(resized(photos[0], 0.7))
    (tmp_path / "train" / "other.jpg").write_bytes(photos[5])
    caption = "a long caption of many words, " * 20
    rows = [{"image": f"{name}.jpg", "caption": caption} for name in ("copy", "other", "gone")]
    table = tmp_path / "train" / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = near_duplicates.EvaluationImages(photos[:3])
    preparation = judging.Preparation(
        open_examples(table), filters.NO_RULES, near_duplicates=evaluation
    )
    tally = Tally()
    for part in preparation.source.parts:
        list(preparation.kept(part, (), tally))
    report = tally.as_json(filters.NO_RULES)
    rules = {rule["rule"]: rule["examples"] for rule in report["rules"]}
    (shown,) = rules["near_duplicate"]
    assert base64.b64decode(shown["matches"]) == evaluation.thumbnail(0)
    page = filter_page.render(report)
    # Two pictures of the near-duplicate, and one of the pair that is kept.
    assert page.count("data:image/jpeg;base64,") == 3
    assert "right: the evaluation image that it matches" in page
    assert page.count(caption.strip()) == 3
    # There is no empty frame for the missing file, and no bar for a rule that drops nothing.
    assert page.count('class="frame"') == 2
    assert page.count('class="bar"') == 2
    assert 'height="0.0"' not in page
