import io

import pytest
from PIL import Image

from align_keras.errors import InputError, MissingInputError
from align_keras.search.originals import Originals


@pytest.fixture
def photos(tmp_path):
    """A folder with an image, and other files that a foreign index could name."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "one.jpg").write_bytes(b"an image")
    (folder / "notes.txt").write_text("private")
    (folder / "table.jsonl").write_text("")
    (tmp_path / "outside.jpg").write_bytes(b"private")
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    return folder


@pytest.mark.parametrize("given", ["", "table.jsonl"])
def test_images_below_the_folder_or_beside_the_table_are_read(photos, given):
    found = Originals(photos / given)
    assert found.has("more/one.jpg")
    assert found.read("more/one.jpg") == b"an image"


@pytest.mark.parametrize(
    "name",
    [
        *("../outside.jpg", "link.jpg", "notes.txt", "more", "", "gone.jpg", "nul\0.jpg"),
        *("/etc/passwd", "x" * 5_000 + ".jpg"),
    ],
)
def test_no_other_file_is_opened(photos, name):
    found = Originals(photos)
    assert not found.has(name)
    assert found.read(name) == b""
    assert not found.has(str(photos.parent / "outside.jpg"))


def test_a_place_without_files_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="none: no such folder or table"):
        Originals(tmp_path / "none")
    for elsewhere in ("gs://bucket/photos", "tfds:coco"):
        with pytest.raises(InputError, match="is not a folder or table of this machine"):
            Originals(elsewhere)


def test_a_result_is_shown_at_full_size_without_its_metadata(page_search, photos, monkeypatch):
    name = page_search.index.label(7).name
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    Image.new("RGB", (5_000, 50)).save(photos / name, exif=exif)
    assert page_search.original(7) == b""  # without --originals
    monkeypatch.setattr(page_search, "originals", Originals(photos))
    shown = page_search.original(7)
    picture = Image.open(io.BytesIO(shown))
    assert (picture.format, picture.size) == ("JPEG", (4_096, 41))
    assert b"where I live" not in shown
    assert page_search.original(8) == b""
    (photos / name).write_bytes(b"no image")
    assert page_search.original(7) == b""
