"""A pair that is left out has a reason that says what was found; the run never ends early."""

import io
import json
import os
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from align_keras.data import records
from align_keras.data.examples.columns import Columns
from align_keras.data.preparation import filters, preparing
from align_keras.data.shard_writer import write_shard
from align_keras.errors import InputError


def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (200, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = jpeg()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0.jpg").write_bytes(JPEG)
    return tmp_path


def prepare(folder, captions="", source="", rules=filters.NO_RULES, **columns):
    """Captions that were packed, and the reasons of the others."""
    found = preparing.open_pairs(captions, "", source, Columns(**columns))
    output = folder / f"out{len(os.listdir(folder))}" / "t"
    report = preparing.prepare(found, preparing.Output(str(output)), rules)
    shards = sorted(output.parent.glob("*.tfrecord"))
    pairs = [
        records.parse_pair(frame) for shard in shards for frame in records.read_frames(str(shard))
    ]
    return sorted((pair["txt"].decode(), pair["image_id"]) for pair in pairs), report["reasons"]


def jsonl(folder, *rows):
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "t.jsonl")


@pytest.mark.parametrize("rules", [filters.NO_RULES, filters.Rules(min_side_above=None)])
def test_names_that_are_no_text_are_read_or_counted(rules, folder):
    latin = os.fsdecode(b"caf\xe9.jpg")
    (folder / latin).write_bytes(JPEG)
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        # Some programs write UTF-8 names without the flag that says so.
        archive.writestr(zipfile.ZipInfo("caf\u251c\u2310.jpg"), JPEG)
    rows = [
        {"image": "0.jpg", "caption": "a red ball on the ground"},
        {"image": latin, "caption": "a red ball on the blue ground"},
        {"image": "café.jpg", "archive": "z.zip", "caption": "a red ball in a zip"},
        {"image": "\ud83d.jpg", "caption": "a half of an emoji here"},
        {"image": "nul\0.jpg", "caption": "a name with a nul"},
        {"image": "0.jpg", "caption": "a half \ud83d of an emoji"},
        {"image": "0.jpg", "archive": "nul\0.zip", "caption": "an archive with a nul"},
        {"image": "x" * 300, "caption": "a name of 300 letters"},
        {"image": "https://x.org/0.jpg", "caption": "a picture on the web"},
        {"image": ".", "caption": "a folder of some images"},
    ]
    packed, reasons = prepare(folder, jsonl(folder, *rows), rules=rules)
    assert packed == [
        ("a red ball in a zip", "z.zip/café.jpg".encode()),
        ("a red ball on the blue ground", rb"caf\udce9.jpg"),
        ("a red ball on the ground", b"0.jpg"),
    ]
    assert reasons == {
        "image file missing": 2,
        "image file unreadable": 1,
        "archive missing": 1,
        "caption contains a lone surrogate (half a character)": 1,
        "image is a URL; download it first": 1,
        "image is a folder": 1,
    }


def test_captions_that_are_no_text_say_what_they_are(folder):
    values = [2016, True, [["nested"]], [{"raw": "a"}], {"0": "a"}, float("nan"), None, "", []]
    rows = [{"image": "0.jpg", "caption": value} for value in values]
    rows += [{"image": "0.jpg", "captions": "[a ball"}, {"image": "0.jpg", "captions": "[a ball]"}]
    packed, reasons = prepare(folder, jsonl(folder, *rows, {"image": "0.jpg", "title": "a"}))
    assert [text for text, _ in packed] == ["[a ball"]
    assert reasons == {
        "caption is a number": 1,
        "caption is a boolean": 1,
        "caption is a list": 1,
        "caption is an object": 2,
        "no caption": 3,
        "empty caption": 1,
        "captions is a list that cannot be read; write it as JSON": 1,
        "no column captions, caption, txt or text, only image, title": 1,
    }


def test_columns_of_bytes_and_objects_say_so(folder):
    images = [b"0.jpg", b"\xff\xfe", None]
    captions = [b"a ball", "un café".encode("latin-1"), b"a"]
    table = folder / "t.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"image": ["0.jpg"] * 3, "caption": pyarrow.array(captions)}), table
    )
    reasons = {"caption is bytes, not text": 2, "caption is not UTF-8": 1}
    assert prepare(folder, str(table)) == ([], reasons)
    pyarrow.parquet.write_table(
        pyarrow.table({"image": pyarrow.array(images), "caption": ["a"] * 3}), table
    )
    reasons = {"image holds bytes, not the path of an image": 2, "image is empty": 1}
    assert prepare(folder, str(table)) == ([], reasons)


def test_images_within_parquet_are_read_as_a_source_and_named_in_a_table(folder):
    table = folder / "hf.parquet"
    rows = [
        {"image": {"bytes": JPEG, "path": "0.jpg"}, "text": "a ball"},
        {"image": {"bytes": None, "path": "1.jpg"}, "text": "a cup"},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    packed, reasons = prepare(folder, source=str(table))
    assert [text for text, _ in packed] == ["a ball"]
    assert reasons == {"no field jpg or key, only image, text": 1}
    problem = "image is an object of bytes, path, not the path of an image"
    assert prepare(folder, str(table)) == ([], {problem: 2})


def test_records_of_another_layout_name_their_fields(folder):
    record = records.make_record(b"", "", "k", **{"image/encoded": JPEG, "image/caption": "a"})
    fields = records.tf.train.Example.FromString(record)
    for name in ("jpg", "txt", "key"):
        del fields.features.feature[name]
    shard = str(folder / "coco.tfrecord")
    write_shard(shard, [fields.SerializeToString()])
    found = "only image/caption, image/encoded"
    _, reasons = prepare(folder, source=shard)
    assert reasons == {f"no field captions, caption, txt or text, {found}": 1}
    _, reasons = prepare(folder, source=shard, caption="image/caption")
    assert reasons == {f"no field jpg, {found}": 1}
    with pytest.raises(InputError, match=f"no field captoin, {found}") as caught:
        prepare(folder, source=shard, caption="captoin")
    assert caught.value.setting == "caption_column"
    for name, setting in (("unsafe", "unsafe_field"), ("carry", "carry")):
        value = "nfsw" if name == "unsafe" else ("nfsw",)
        with pytest.raises(InputError, match=f"no field nfsw, {found}") as caught:
            prepare(folder, source=shard, **{name: value})
        assert caught.value.setting == setting


def test_an_archive_of_another_kind_is_named(folder):
    (folder / "z.zip").write_bytes(b"\x1f\x8b" + bytes(30))
    rows = [{"image": "a.jpg", "archive": name, "caption": "a"} for name in ("z.zip", "none.zip")]
    _, reasons = prepare(folder, jsonl(folder, *rows))
    assert reasons == {"archive is compressed by gzip, not zip": 1, "archive missing": 1}
