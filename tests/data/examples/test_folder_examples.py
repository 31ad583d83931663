import os

import pytest

from align_keras.data.examples import image_files, open_examples, open_images
from align_keras.errors import InputError


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"jpeg")
    return folder


def names_of(found):
    return [example.image_id for example in found]


HIDDEN = (".cache/x.jpg", "__MACOSX/a/x.jpg", "a/._x.jpg", "a/.thumbs/x.jpg", "a/__MACOSX/x.jpg")


def test_hidden_files_and_folders_are_passed_over_everywhere(tmp_path):
    folder = write(tmp_path / ".photos", "a/x.jpg", "b/y.PNG", "a/notes.txt", *HIDDEN)
    classes, images = open_examples(folder), open_images(folder)
    assert names_of(classes) == names_of(images) == ["a/x.jpg", "b/y.PNG"]
    assert classes.class_names == ("a", "b")
    assert classes.count == images.count == 2


def test_hidden_files_do_not_change_the_fingerprint(tmp_path):
    folder = write(tmp_path / "photos", "a/x.jpg")
    before = open_images(folder).fingerprint
    assert open_images(write(folder, *HIDDEN)).fingerprint == before
    assert open_images(write(folder, "a/y.jpg")).fingerprint != before


def test_links_are_followed_once(tmp_path):
    folder = write(tmp_path / "photos", "a/x.jpg", "b/y.jpg")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "b" / "itself").symlink_to("itself")
    assert names_of(open_images(folder)) == ["a/x.jpg", "b/y.jpg"]
    # The folders of two classes may be links to the same images.
    (folder / "c").symlink_to(folder / "b")
    assert names_of(open_examples(folder, select=()))[-2:] == ["b/y.jpg", "c/y.jpg"]


def test_pipes_and_large_files_are_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="not a file"):
        image_files.read_file(tmp_path / "pipe.jpg")
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "large.jpg").write_bytes(bytes((1 << 20) + 1))
    (example,) = [one for one in open_images(tmp_path) if one.image_id == "large.jpg"]
    with pytest.raises(OSError, match="more than 1 MiB"):
        example.load()
    with pytest.raises(FileNotFoundError):
        image_files.ImageFolder(tmp_path).read("none.jpg")


def test_images_of_formats_that_are_not_read_are_not_passed_over(tmp_path):
    folder = write(tmp_path, "a/x.jpg", "a/y.TIFF", "a/z.heic", "a/notes.txt", "a/w.jfif")
    found = open_images(folder)
    faults = [(example.image_id, example.fault) for example in found.images()]
    assert faults == [
        ("a/w.jfif", None),
        ("a/x.jpg", None),
        ("a/y.TIFF", ".tiff is an unsupported format"),
        ("a/z.heic", ".heic is an unsupported format"),
    ]
    with pytest.raises(InputError, match="is an unsupported format"):
        list(open_examples(folder))
    shuffled = [(example.image_id, example.fault) for example in found.shuffled(1)]
    assert shuffled != faults
    assert sorted(shuffled) == sorted(faults)


def test_images_beside_the_folders_of_classes_are_reported(tmp_path, caplog):
    open_examples(write(tmp_path, "a/x.jpg", "y.jpg", "z.png", "notes.txt", "._x.jpg"))
    assert [one.getMessage() for one in caplog.records] == [
        f"{tmp_path}: 2 images outside the class folders left out"
    ]


def test_the_seed_decides_the_order(tmp_path):
    found = open_examples(write(tmp_path, *(f"a/{index}.jpg" for index in range(9))))
    orders = [names_of(found.shuffled(seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == names_of(found)
