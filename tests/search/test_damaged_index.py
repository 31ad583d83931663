"""Damage to an index is either reported or does not change the answers."""

import shutil

import numpy as np
import pytest
from damage import KINDS, damaged_copy
from small_indexes import build

from align_keras import checksums
from align_keras.data import examples
from align_keras.errors import InputError
from align_keras.search import image_index, indexing
from align_keras.search.image_index import ImageIndex


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory, held_out_images):
    folder = tmp_path_factory.mktemp("sound")
    (folder / "photos").mkdir()
    for number, data in enumerate(held_out_images[:12]):
        (folder / "photos" / f"{number:02}.jpg").write_bytes(data)
    (folder / "photos" / "bad.jpg").write_bytes(held_out_images[0][:200])
    build(tiny_model, folder / "photos", folder / "index", thumbnail_size=16)
    return folder / "index"


def answers(index):
    places, scores = index.search(np.eye(8, dtype="float32"), 12)
    shown = [(index.label(place), index.thumbnail(place)) for place in range(len(index))]
    return places.tolist(), scores.tolist(), shown


@pytest.fixture(scope="module")
def expected(folder):
    return answers(ImageIndex(folder))


@pytest.mark.parametrize("read_up_to", [1 << 25, 0])
@pytest.mark.parametrize("seed", range(5 * len(KINDS)))
def test_damage_is_reported_or_changes_no_answer(
    seed, read_up_to, folder, expected, tmp_path, monkeypatch
):
    # With 0, as for a large index, opening compares only the sizes of the files.
    monkeypatch.setattr(image_index, "READ_UP_TO", read_up_to)
    copy, done = damaged_copy(folder, tmp_path / "copy", seed)
    try:
        index = ImageIndex(copy)
        faults = [str(fault) for fault in index.faults()]
        if not faults:
            assert answers(index) == expected, done
    except InputError as error:
        faults = [str(error)]
    assert all(str(copy) in line and "\n" not in line for line in faults)


def test_an_index_of_an_earlier_version_opens(folder, expected, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "checksums.json").unlink()
    assert answers(ImageIndex(copy)) == expected


def flip_last_byte(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("name", ["embeddings.bin", "thumbnails.bin"])
def test_what_was_committed_is_checked_before_it_is_gone_on_with(
    name, folder, tiny_model, tmp_path, monkeypatch
):
    source = examples.open_images(folder.parent / "photos")
    monkeypatch.setattr(indexing, "_COMMIT_SECONDS", 0.0)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexing.build_index(tiny_model, source, tmp_path / "cut", batch_size=8, committed=stop)
    flip_last_byte(tmp_path / "cut" / name)
    with pytest.raises(InputError, match=f"{name}: damaged: .*; restart builds the index again"):
        indexing.build_index(tiny_model, source, tmp_path / "cut", batch_size=8)


def test_a_damaged_index_is_neither_called_finished_nor_divided_anew(folder, tiny_model, tmp_path):
    copy, photos = shutil.copytree(folder, tmp_path / "copy"), folder.parent / "photos"
    flip_last_byte(copy / "embeddings.bin")
    for exact_below in (100, 1):
        with pytest.raises(InputError, match=r"embeddings.bin: damaged: .*; restart builds"):
            build(tiny_model, photos, copy, thumbnail_size=16, exact_below=exact_below)
    build(tiny_model, photos, copy, thumbnail_size=16, restart=True)
    assert list(checksums.faults(checksums.list_of(copy))) == []


def test_a_large_index_is_verified_in_the_background(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "copy")
    flip_last_byte(copy / "thumbnails.bin")
    monkeypatch.setattr(image_index, "READ_UP_TO", 0)
    faults = []
    ImageIndex(copy).verify_in_background(faults.append).join()
    (fault,) = map(str, faults)
    assert fault.startswith(f"{copy}/thumbnails.bin: damaged: its checksum has changed")
