import os

import numpy as np
import pytest
from small_indexes import build, write_photos

from align_keras.data import examples
from align_keras.errors import InputError, MissingInputError
from align_keras.search import indexing
from align_keras.search.image_index import ImageIndex


@pytest.fixture
def photos(tmp_path, held_out_images):
    return write_photos(tmp_path / "photos", held_out_images)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_that_was_cut_off_goes_on(after, tiny_model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_COMMIT_SECONDS", 0.0)
    build(tiny_model, photos, tmp_path / "whole")
    times = (photos / "00.jpg").stat()
    source = examples.open_images(photos)
    calls = []

    def stop(done, _):
        calls.append(done)
        if len(calls) == after:
            raise KilledError

    with pytest.raises(KilledError):
        indexing.build_index(tiny_model, source, tmp_path / "cut", batch_size=8, committed=stop)
    # As after a kill during writing.
    for name in ("embeddings.bin", "labels.bin", "thumbnails.ends", "unreadable.jsonl"):
        with (tmp_path / "cut" / name).open("ab") as file:
            file.write(b"half")
    with pytest.raises(MissingInputError, match="no finished index"):
        ImageIndex(tmp_path / "cut")
    os.utime(photos / "00.jpg", (1, 1))
    with pytest.raises(InputError, match="other images, or some were added") as caught:
        build(tiny_model, photos, tmp_path / "cut")
    assert caught.value.setting == "images"
    os.utime(photos / "00.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    _, embedded = indexing.build_index(tiny_model, source, tmp_path / "cut", batch_size=8)
    # Four of the 34 images are unreadable, so the first batches embedded fewer than 8 each.
    assert 30 - 8 * after <= embedded < 30
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "cut").iterdir())
    for name in names:
        one, other = ((tmp_path / way / name).read_bytes() for way in ("whole", "cut"))
        if name == "embeddings.bin":
            # Different batches give slightly different sums.
            one, other = (np.frombuffer(data, "<f4") for data in (one, other))
            np.testing.assert_allclose(one, other, atol=1e-5)
        else:
            assert one == other, name
    # A finished index is not changed.
    assert indexing.build_index(tiny_model, source, tmp_path / "cut")[1] == 0


@pytest.mark.parametrize("name", ["progress.json", "labels.bin"])
def test_damaged_progress_is_reported(name, tiny_model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_COMMIT_SECONDS", 0.0)
    source = examples.open_images(photos)

    def stop(*_):
        raise KilledError

    with pytest.raises(KilledError):
        indexing.build_index(tiny_model, source, tmp_path / "cut", batch_size=8, committed=stop)
    os.truncate(tmp_path / "cut" / name, 3)
    with pytest.raises(InputError, match="restart builds the index again") as caught:
        build(tiny_model, photos, tmp_path / "cut")
    assert caught.value.place.file == str(tmp_path / "cut" / name)
