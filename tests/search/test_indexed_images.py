import json
import os
import zipfile

import numpy as np
import pytest
from small_indexes import build

from align_keras.data import examples, records
from align_keras.data.examples import Example, image_files
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import Place
from align_keras.search import indexing
from align_keras.search.image_index import ImageIndex


def test_tables_archives_and_shards_give_the_same(tiny_model, held_out_images, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number, data in enumerate(held_out_images):
            archive.writestr(f"{number}.jpg", data)
    rows = [
        {
            "image": f"{n}.jpg",
            "archive": "images.zip",
            "captions": [f"photo {n}", "b"],
            "kind": n % 2,
        }
        for n in range(30)
    ]
    rows += [rows[0], {"image": "31.jpg", "archive": "images.zip", "kind": 0}]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ShardWriter(str(tmp_path / "shard"), 20) as writer:
        for number, data in enumerate(held_out_images):
            for text in (f"photo {number}", "b"):
                writer.write(records.make_record(data, text, "k", image_id=f"image {number}"))
    path = tmp_path / "shard-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    header, by_table = build(tiny_model, table, tmp_path / "table")
    shards_header, by_shards = build(tiny_model, tmp_path / "shard-*.tfrecord", tmp_path / "shards")
    assert (header.count, header.unreadable) == (30, 1)
    assert (shards_header.count, shards_header.unreadable) == (30, 1)
    np.testing.assert_allclose(by_table.embeddings, by_shards.embeddings, atol=1e-6)
    assert vars(by_table.label(4)) == {"name": "images.zip/4.jpg", "caption": "photo 4"}
    assert vars(by_shards.label(4)) == {"name": "image 4", "caption": "photo 4"}
    assert examples.open_images(table, ("kind=1",)).count == 15


def test_an_index_of_one_image(tiny_model, held_out_images, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(held_out_images[0])
    header, index = build(tiny_model, tmp_path / "photos", tmp_path / "index", exact_below=1)
    assert (header.count, header.lists) == (1, 1)
    for own in (index, ImageIndex(tmp_path / "index", exact=True)):
        places, scores = own.search(own.embeddings, 24)
        assert places.tolist() == [[0]]
        np.testing.assert_allclose(scores, 1.0, atol=1e-6)
    # Names that are not valid text can still be printed and sent.
    assert index.label(0).name == "caf?.jpg"


def test_members_that_lie_about_their_sizes_are_listed(
    tiny_model, held_out_images, tmp_path, monkeypatch
):
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.jpg", held_out_images[0])
        archive.writestr("bomb.jpg", bytes(2 << 20))
        archive.writestr("short.jpg", held_out_images[1], zipfile.ZIP_STORED)
        short = archive.getinfo("short.jpg")
        short.compress_size = short.file_size = 1 << 19
    rows = [{"image": f"{name}.jpg", "archive": "images.zip"} for name in ("good", "bomb", "short")]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    header, index = build(tiny_model, table, tmp_path / "index")
    assert (header.count, index.label(0).name) == (1, "images.zip/good.jpg")
    lines = (tmp_path / "index" / "unreadable.jsonl").read_text().splitlines()
    reasons = {row["name"]: row["reason"] for row in map(json.loads, lines)}
    assert reasons.keys() == {"images.zip/bomb.jpg", "images.zip/short.jpg"}
    assert reasons["images.zip/bomb.jpg"] == "more than 1 MiB"


def test_an_error_without_words_is_a_reason_too(tiny_model):
    def load():
        raise EOFError  # raised by zipfile, for example

    image = Example(Place("x.jpg"), "x.jpg", load)
    assert indexing._prepare(image, tiny_model.preprocessor, 0).fault == "EOFError()"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("none", "none"),
        ("none.csv", "none.csv"),
        ("empty", "empty: .*no image"),
        ("bad.csv", "bad.csv: no column image, only picture"),
        ("all_bad", "1 image, but no readable one; .*unreadable.jsonl has the reasons"),
    ],
)
def test_unusable_images_are_one_line(images, message, tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "all_bad").mkdir()
    (tmp_path / "all_bad" / "x.jpg").write_text("no")
    (tmp_path / "bad.csv").write_text("picture\nx.jpg\n")
    with pytest.raises((ValueError, OSError), match=message) as raised:
        build(tiny_model, tmp_path / images, tmp_path / "index")
    assert "\n" not in str(raised.value)
