import json
import os

import numpy as np
import pytest
from small_indexes import build

from align_keras.errors import InputError
from align_keras.search.image_index import ImageIndex


def header_with(**fields):
    return lambda index: (index / "index.json").write_text(
        json.dumps({**json.loads((index / "index.json").read_text()), **fields})
    )


def cut(name):
    return lambda index: os.truncate(index / name, (index / name).stat().st_size - 1)


def link(name, target):
    def do(index):
        (index / name).unlink()
        (index / name).symlink_to(target)

    return do


def ends(values):
    def do(index):
        found = np.fromfile(index / "labels.ends", "<u8")
        found[: len(values)] = values
        found.tofile(index / "labels.ends")

    return do


def overwrite(name, data):
    def do(index):
        size = (index / name).stat().st_size
        (index / name).write_bytes((data * size)[:size])

    return do


HOSTILE = {
    "no JSON": lambda index: (index / "index.json").write_bytes(b"\x80\x04cos\nsystem\n"),
    "deep JSON": lambda index: (index / "index.json").write_text("[" * 60_000),
    "a large header": lambda index: (index / "index.json").write_text(" " * 100_000),
    "an unknown field": header_with(run="os.system"),
    "another kind": header_with(kind="x"),
    "a count of text": header_with(count="30"),
    "a count of truth": header_with(count=True),
    "a huge count": header_with(count=1 << 60),
    "a huge width": header_with(width=1 << 40),
    "a negative width": header_with(width=-8),
    "an object as precision": header_with(precision="object"),
    "no fingerprint": header_with(fingerprint="../../x"),
    "more lists than images": header_with(lists=31),
    "fewer lists": header_with(lists=4),
    "cut embeddings": cut("embeddings.bin"),
    "cut labels": cut("labels.bin"),
    "cut ends": cut("thumbnails.ends"),
    "cut centroids": cut("centroids.bin"),
    "cut lists": cut("lists.bin"),
    "a missing file": lambda index: (index / "lists.bin").unlink(),
    "a link out": link("labels.bin", "/etc/passwd"),
    "a header elsewhere": link("index.json", "/etc/passwd"),
    "ends that go back": ends([1 << 40, 0]),
    "ends of one huge label": ends([1 << 63]),
    "labels of other bytes": overwrite("labels.bin", b"\xff["),
    "thumbnails of other bytes": overwrite("thumbnails.bin", b"<svg onload=alert(1)>"),
    "lists out of range": overwrite("lists.bin", b"\xff"),
    "centroids of no numbers": overwrite("centroids.bin", b"\xff"),
}


@pytest.fixture(scope="module")
def built(tiny_model, tmp_path_factory, held_out_images):
    folder = tmp_path_factory.mktemp("built")
    (folder / "photos").mkdir()
    for number, data in enumerate(held_out_images):
        (folder / "photos" / f"{number:02}.jpg").write_bytes(data)
    build(tiny_model, folder / "photos", folder / "index", exact_below=30, num_lists=5)
    # Checksums are left out, since a foreign index may have any checksums.
    paths = set((folder / "index").iterdir()) - {folder / "index" / "checksums.json"}
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_index_is_one_clear_line(what, built, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    for name, data in built.items():
        (folder / name).write_bytes(data)
    HOSTILE[what](folder)
    with pytest.raises(InputError, match="index") as caught:
        index = ImageIndex(folder)
        for place in range(len(index)):
            index.label(place)
            index.thumbnail(place)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_broken_embeddings_do_not_break_a_search(built, tmp_path):
    for name, data in built.items():
        (tmp_path / name).write_bytes(data)
    overwrite("embeddings.bin", b"\xff")(tmp_path)
    for exact in (True, False):
        _, scores = ImageIndex(tmp_path, exact).search(np.ones((1, 8)), 3)
        assert np.isneginf(scores).all()
