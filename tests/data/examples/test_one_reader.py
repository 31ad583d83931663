"""The same images, captions and classes are read from every kind of source."""

import csv
import io
import json
import pickle
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from align_keras.data import records
from align_keras.data.examples import open_examples, open_images
from align_keras.data.examples.img2dataset_examples import ParquetExamples
from align_keras.data.pairs import image_id_of
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import MissingInputError


def jpeg(red):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (red, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


#: Image, caption, class. The second image occurs twice; labels are not in alphabetical order.
PAIRS = [
    ("a/0.jpg", jpeg(0), "zero, “quoted”", "zebra", 0),
    ("a/1.jpg", jpeg(90), "one", "ant", 1),
    ("a/1.jpg", jpeg(90), "one again", "ant", 1),
    ("b/2.jpg", jpeg(200), "", "zebra", 0),
]
CAPTIONS = [(pair[2],) if pair[2] else () for pair in PAIRS]
ROWS = [
    {"image": image, "caption": caption, "class_name": name, "label": label, "image_id": image}
    for image, _, caption, name, label in PAIRS
]


def write_images(folder):
    for image, data, *_ in PAIRS:
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).write_bytes(data)


def jsonl(folder):
    write_images(folder)
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder / "t.jsonl"


def separated(folder, name, delimiter):
    write_images(folder)
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return folder / name


def comma_separated(folder):
    return separated(folder, "t.csv", ",")


def tab_separated(folder):
    return separated(folder, "t.tsv", "\t")


def parquet_table(folder):
    write_images(folder)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "t.parquet")
    return folder / "t.parquet"


def zip_archive(folder):
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        for image, data in {image: data for image, data, *_ in PAIRS}.items():
            archive.writestr(image, data)
    rows = [{**row, "archive": "z.zip"} for row in ROWS]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "t.jsonl"


def tfrecord(folder):
    with ShardWriter(str(folder / "s"), 3) as writer:
        for image, data, caption, name, label in PAIRS:
            fields = {"image_id": image, "class_name": name, "label": label}
            writer.write(records.make_record(data, caption, "k", **fields))
    return f"{folder}/s-*.tfrecord"


def tar(folder):
    with tarfile.open(folder / "0.tar", "w") as archive:
        for index, (row, pair) in enumerate(zip(ROWS, PAIRS, strict=True)):
            files = {"jpg": pair[1], "txt": pair[2].encode(), "json": json.dumps(row).encode()}
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{index:05d}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return f"{folder}/*.tar"


KINDS = [jsonl, comma_separated, tab_separated, parquet_table, zip_archive, tfrecord, tar]


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_gives_the_same_examples(write, tmp_path):
    data = write(tmp_path)
    found = open_examples(data)
    examples = list(found)
    assert [example.load() for example in examples] == [pair[1] for pair in PAIRS]
    assert [example.read_image() for example in examples] == [pair[1] for pair in PAIRS]
    assert [example.captions for example in examples] == CAPTIONS
    assert [example.class_name for example in examples] == [pair[3] for pair in PAIRS]
    assert [example.label for example in examples] == [pair[4] for pair in PAIRS]
    ids = [example.image_id.removeprefix("z.zip/") for example in examples]
    assert ids == [pair[0] for pair in PAIRS]
    assert len({example.key for example in examples}) == len(PAIRS)
    assert all(example.place.file and example.place.row for example in examples)
    assert not any(example.fault for example in examples)
    # Class names come in the order of the labels.
    assert found.class_names == ("zebra", "ant")
    assert sorted(example.key for example in found.shuffled(1)) == sorted(
        example.key for example in found
    )
    by_part = [example.key for part in found.parts for example in found.read(part)]
    assert by_part == [example.key for example in examples]
    assert [example.image_id for example in found.images()] == list(
        dict.fromkeys(example.image_id for example in examples)
    )
    assert found.fingerprint == open_images(data).fingerprint


def test_an_archive_is_opened_once_for_all_passes(tmp_path, monkeypatch):
    found = open_examples(zip_archive(tmp_path))
    opened = []
    open_archive = zipfile.ZipFile
    monkeypatch.setattr(
        zipfile, "ZipFile", lambda *args: opened.append(args) or open_archive(*args)
    )
    for examples in (found, found.shuffled(1), found.images()):
        assert all(example.load() for example in examples)
    assert len(opened) == 1
    again = pickle.loads(pickle.dumps(found))
    assert [example.load() for example in again] == [pair[1] for pair in PAIRS]


def test_a_missing_folder_of_a_split_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="no folder .*val for the split val") as caught:
        open_examples(tmp_path, "val")
    assert caught.value.setting == "split"


def test_karpathys_file_gives_the_same_images_and_captions(tmp_path):
    write_images(tmp_path)
    rows = [
        {
            "filename": image,
            "split": "test",
            "sentences": [
                {"raw": f" {caption} "} for name, _, caption, *_ in PAIRS if name == image
            ],
        }
        for image in dict.fromkeys(pair[0] for pair in PAIRS)
    ]
    (tmp_path / "d.json").write_text(json.dumps({"images": [*rows, {**rows[0], "split": "val"}]}))
    found = open_examples(tmp_path / "d.json")
    assert [example.image_id for example in found] == ["a/0.jpg", "a/1.jpg", "b/2.jpg"]
    assert [example.captions for example in found] == [
        ("zero, “quoted”",),
        ("one", "one again"),
        (),
    ]
    assert [example.load() for example in found] == [PAIRS[0][1], PAIRS[1][1], PAIRS[3][1]]
    assert open_images(tmp_path / "d.json").count == 3


def test_folders_give_the_same_images_with_or_without_classes(tmp_path):
    write_images(tmp_path)
    data = [PAIRS[0][1], PAIRS[1][1], PAIRS[3][1]]
    classes, images = open_examples(tmp_path), open_images(tmp_path)
    for found in (classes, images):
        assert [example.image_id for example in found] == ["a/0.jpg", "a/1.jpg", "b/2.jpg"]
        assert [example.load() for example in found] == data
    assert [example.class_name for example in classes] == ["a", "a", "b"]
    assert classes.class_names == ("a", "b")
    assert images.class_names is None


def test_parquet_of_img2dataset_gives_the_same_examples(tmp_path):
    rows = [{**row, "jpg": pair[1]} for row, pair in zip(ROWS, PAIRS, strict=True)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "0.parquet")
    found = list(ParquetExamples([str(tmp_path / "0.parquet")]))
    assert [example.load() for example in found] == [pair[1] for pair in PAIRS]
    assert [example.captions for example in found] == CAPTIONS
    assert [example.image_id for example in found] == [pair[0] for pair in PAIRS]


def test_image_ids_of_any_type_and_empty_ones(tmp_path):
    ids = [7, "7", 0, "", None, "x"]
    with ShardWriter(str(tmp_path / "s"), 10) as writer:
        for image_id in ids:
            fields = {} if image_id is None else {"image_id": image_id}
            writer.write(records.make_record(b"jpeg", "a", "k", **fields))
    frames = records.read_frames(f"{tmp_path}/s-00000.tfrecord")
    trained = [image_id_of(frame).decode() for frame in frames]
    found = [example.image_id for example in open_examples(f"{tmp_path}/s-*.tfrecord")]
    assert [own for own, id_ in zip(found, trained, strict=True) if id_] == ["7", "7", "0", "x"]
    # Each record without an id counts as a separate image.
    own = [own for own, id_ in zip(found, trained, strict=True) if not id_]
    assert len({*own, "7", "0", "x"}) == 5
