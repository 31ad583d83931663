"""Images with captions or classes are read alike from remote and from local folders."""

import gzip
import json
import re
import zipfile

import pytest
from PIL import Image

from align_keras import uploads
from align_keras.data.examples import open_examples, open_images
from align_keras.errors import InputError, MissingInputError
from align_keras.remote_path import RemotePath

ROOM = "ram://examples"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A folder of images by class, a zip of these, and tables; copies of all are below ``ROOM``."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("local")
    names = []
    for number, own in enumerate(("photos/a/1.png", "photos/a/2.png", "photos/b/3.png")):
        (folder / own).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + number, 4)).save(folder / own)
        names.append(own)
    (folder / "photos/.hidden").mkdir()
    (folder / "photos/.hidden/4.png").write_bytes(b"")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(folder / names[0], "in.png")
    rows = [{"image": name, "caption": f"caption of {name}", "archive": ""} for name in names]
    rows.append({"image": "in.png", "caption": "packed", "archive": "photos.zip"})
    rows.append({"image": "none.png", "caption": "lost", "archive": ""})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [",".join(row.values()) for row in rows]
    text = "\n".join(["\ufeffimage,caption,archive", *lines, ""])
    (folder / "rows.csv.gz").write_bytes(gzip.compress(text.encode()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    image = {"filename": "1.png", "filepath": "photos/a", "split": "test"}
    karpathy = {"images": [{**image, "sentences": [{"raw": "a"}, {"raw": "b"}]}]}
    (folder / "karpathy.json").write_text(json.dumps(karpathy))
    for path in folder.rglob("*"):
        if path.is_file():
            target = RemotePath(f"{ROOM}/{path.relative_to(folder)}")
            target.parent.mkdir(parents=True, exist_ok=True)
            uploads.put(path, target)
    return folder


def contents(data):
    found = open_examples(data)
    assert found.fingerprint
    return [image_and_texts(example) for example in found]


def image_and_texts(example):
    try:
        image = example.read_image()
    except InputError as error:
        image = re.sub(r"'.*/", "'", error.problem)
    return image, tuple(example.texts), example.image_id, example.class_name


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.csv.gz", "rows.parquet", "karpathy.json", "photos"]
)
def test_what_is_read_there_is_what_is_read_here(name, local):
    expected = contents(str(local / name))
    assert expected == contents(f"{ROOM}/{name}")
    assert sum(isinstance(image, bytes) for image, *_ in expected) >= 1


def test_every_image_below_a_folder_is_found(local):
    names = [own.key for own in open_images(f"{ROOM}/photos")]
    assert names == ["a/1.png", "a/2.png", "b/3.png"]
    assert names == [own.key for own in open_images(local / "photos")]


def test_a_table_here_may_name_images_there(local, tmp_path):
    table = tmp_path / "rows.jsonl"
    names = [f"{ROOM}/photos/a/1.png", "https://x/1.png", f"{ROOM}/photos"]
    table.write_text("".join(json.dumps({"image": name, "caption": "a"}) + "\n" for name in names))
    images = [image_and_texts(example)[0] for example in open_examples(table)]
    assert images[0] == (local / "photos/a/1.png").read_bytes()
    assert images[1:] == [
        "image cannot be read (image is a URL; download it first)",
        "image cannot be read (image is a folder)",
    ]


@pytest.mark.parametrize("name", ["none.jsonl", "none/*", "none"])
def test_what_is_not_there_is_one_line(name):
    with pytest.raises(MissingInputError, match=f"{ROOM}/none"):
        open_examples(f"{ROOM}/{name}")
