"""Every pair either becomes a record or is left out for a stated reason."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from bombs import make_bomb
from PIL import Image

from align_keras.data import records
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.image_files import ImageFolder
from align_keras.data.examples.table_examples import TableExamples
from align_keras.data.examples.tables import NO_OBJECT
from align_keras.data.preparation import filter_page, filters
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.judging import Preparation
from align_keras.errors import InputError


def image_bytes(kind, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (20, 10), 200 if mode == "L" else (200, 30, 30, 0)[: len(mode)]).save(
        buffer, kind
    )
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(image_bytes("JPEG"))
    (tmp_path / "b.png").write_bytes(image_bytes("PNG", "RGBA"))
    (tmp_path / "bad.jpg").write_bytes(image_bytes("JPEG")[:100])
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("in/c.jpg", image_bytes("JPEG", "L"))
    return tmp_path


class GivenRows(TableExamples):
    """A table that is a list of ``(where, fields)``."""

    def __init__(self, given, folder, carry=()):
        super().__init__("table", folder, Columns(carry=tuple(carry)))
        self.given = given

    def read(self, part):
        folder = ImageFolder(self.images_folder)
        for where, fields in self.given:
            yield self.example(where, fields, folder)


def pack(rows, folder, carry=(), tally=None):
    tally = tally or Tally()
    preparation = Preparation(GivenRows(rows, folder, carry), filters.NO_RULES)
    kept = list(preparation.kept("table", (), tally))
    return [records.parse_pair(record) for _, record in kept], tally.reasons


def test_every_pair_is_packed_or_left_out_with_a_reason(folder):
    rows = [
        ("1", {"image": "a.jpg", "captions": ["one", " ", "two"], "type": "red", "n": 3}),
        ("2", {"image": "b.png", "caption": "three"}),
        ("3", {"image": "in/c.jpg", "archive": "more.zip", "text": "four"}),
        ("4", {"image": "bad.jpg", "caption": "x"}),
        ("5", {"image": "none.jpg", "caption": "x"}),
        ("6", {"image": "in/none.jpg", "archive": "more.zip", "caption": "x"}),
        ("7", {"image": "a.jpg", "caption": ""}),
        ("8", {"caption": "x"}),
        ("9", NO_OBJECT),
    ]
    pairs, reasons = pack(rows, folder, carry=["class_name=type", "n"])
    assert [pair["txt"] for pair in pairs] == [b"one", b"two", b"three", b"four"]
    assert [pair["image_id"] for pair in pairs] == [
        b"a.jpg",
        b"a.jpg",
        b"b.png",
        b"more.zip/in/c.jpg",
    ]
    assert len({pair["key"] for pair in pairs}) == 4
    assert (pairs[0]["class_name"], pairs[0]["n"]) == (b"red", 3)
    assert reasons == {
        "empty caption": 2,
        "image does not decode": 1,
        "image file missing": 1,
        "image missing in its archive": 1,
        "no column image, only caption": 1,
        "not a JSON object": 1,
    }
    # A JPEG keeps its bytes; other images become JPEGs, with white in place of transparency.
    assert pairs[0]["jpg"] == image_bytes("JPEG")
    assert tf.io.decode_jpeg(pairs[2]["jpg"]).numpy().min() > 250


def test_cmyk_jpegs_become_rgb(folder):
    (folder / "k.jpg").write_bytes(image_bytes("JPEG", "CMYK"))
    pairs, _ = pack([("1", {"image": "k.jpg", "caption": "x"})], folder)
    assert tf.io.decode_jpeg(pairs[0]["jpg"]).shape == (10, 20, 3)


def test_a_bomb_is_left_out(folder):
    (folder / "a.jpg").write_bytes(make_bomb())
    _, reasons = pack([("1", {"image": "a.jpg", "caption": "x"})], folder)
    assert reasons == {"image has too many pixels": 1}


def test_foreign_rows_do_not_stop_the_packing(folder):
    (folder / "broken.zip").write_bytes(b"PK nonsense")
    rows = [
        ("1", {"image": "bad.jpg", "captions": ["x", "y"]}),
        ("2", {"image": "a.jpg", "captions": ["good", 7]}),
        ("3", {"image": "a.jpg", "archive": "broken.zip", "caption": "x"}),
        ("4", {"image": "a.jpg", "archive": float("nan"), "caption": "packed"}),
        ("5", {"image": "a.jpg", "caption": "lone \ud800"}),
        ("6", {"image": "a.jpg", "caption": "x", "tags": ["list"]}),
    ]
    pairs, reasons = pack(rows, folder, carry=["tags"])
    assert [pair["txt"] for pair in pairs] == [b"good", b"packed"]
    assert reasons == {
        "image does not decode": 2,
        "caption is a number": 1,
        "image file unreadable": 1,
        "caption contains a lone surrogate (half a character)": 1,
        "tags cannot be stored in a record (list)": 1,
    }
    with pytest.raises(InputError, match="txt is a field that every record has") as caught:
        pack(rows, folder, carry=["txt=caption"])
    assert caught.value.setting == "carry"


def damage_member(path, position, value):
    """Sets a byte of the last member's data, or of the archive's directory."""
    data = bytearray(path.read_bytes())
    data[position] = value
    path.write_bytes(data)


def test_damaged_and_encrypted_members_are_counted(folder):
    for name in ("damaged.zip", "locked.zip"):
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("c.jpg", b"x" * 10_000)
    damage_member(folder / "damaged.zip", 30 + len("c.jpg"), 0xFF)
    directory = (folder / "locked.zip").read_bytes().index(b"PK\x01\x02")
    damage_member(folder / "locked.zip", directory + 8, 1)  # the encryption flag
    damage_member(folder / "locked.zip", 6, 1)
    rows = [
        (name, {"image": "c.jpg", "archive": name, "caption": "x"})
        for name in ("damaged.zip", "locked.zip")
    ]
    pairs, reasons = pack(rows, folder)
    assert pairs == []
    assert reasons == {"image file unreadable": 2}


def test_numbers_that_cannot_be_are_counted(folder):
    rows = [
        ("1", {"image": "a.jpg", "caption": "x", "n": 1 << 63}),
        ("2", {"image": 7, "caption": "x", "n": 1}),
        ("3", {"image": "a.jpg", "caption": "good", "n": -1}),
    ]
    pairs, reasons = pack(rows, folder, carry=["n"])
    assert [pair["n"] for pair in pairs] == [-1]
    assert reasons == {
        "n cannot be stored in a record (int)": 1,
        "image is not text": 1,
    }


def test_deep_and_phone_images_keep_what_they_show(folder):
    deep = np.full((4, 4), 30_000, "uint16")
    Image.fromarray(deep).save(folder / "deep.png")
    picture = Image.new("RGB", (8, 8), "red")
    picture.save(folder / "phone.jpg", "MPO", save_all=True, append_images=[picture])
    rows = [(name, {"image": name, "caption": "x"}) for name in ("deep.png", "phone.jpg")]
    pairs, _ = pack(rows, folder)
    assert abs(int(tf.io.decode_jpeg(pairs[0]["jpg"])[0, 0, 0]) - 117) <= 1
    assert pairs[1]["jpg"] == (folder / "phone.jpg").read_bytes()


def test_images_on_their_side_are_counted(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (("side.jpg", {"exif": exif}), ("up.jpg", {})):
        Image.new("RGB", (20, 10)).save(folder / name, **options)
    rows = [(name, {"image": name, "captions": ["x", "y"]}) for name in ("side.jpg", "up.jpg")]
    tally, other = Tally(), Tally()
    pack([*rows, ("3", {"image": "side.jpg", "caption": ""})], folder, tally=tally)
    pack(rows[:1], folder, tally=other)
    report = tally.merge(other).as_json(filters.NO_RULES)
    assert report["pairs_turned_upright"] == 4
    assert "EXIF turns the images of 4 kept pairs upright" in filter_page.render(report)
    sizes = {shown["where"]: shown["size"] for shown in report["kept_examples"]}
    assert sizes == {"side.jpg": [10, 20], "up.jpg": [20, 10]}
