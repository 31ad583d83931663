import gzip
import re

import pytest

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation.tasks.evaluate import evaluate
from align_keras.evaluation.tasks.multi30k import Multi30k


@pytest.fixture
def folder(scene_photos, tmp_path):
    """Fifteen images with captions in two languages."""
    files = sorted((scene_photos / "test").rglob("*.jpg"))
    for language in ("en", "de"):
        lines = [f"{language} caption number {index}" for index in range(len(files))]
        (tmp_path / f"test_2016_flickr.{language}").write_text("\n".join(lines) + "\n")
    (tmp_path / "names.txt").write_text("".join(f"{i}.jpg\n" for i in range(len(files))))
    for index, file in enumerate(files):
        (tmp_path / f"{index}.jpg").write_bytes(file.read_bytes())
    return tmp_path


def test_captions_and_images_are_compared(tiny_model, folder, capsys):
    texts = evaluate(tiny_model, Multi30k(data=str(folder)), folder).metrics
    assert texts.keys() == {"text_mean_recall_en_de", "unknown_pieces_en", "unknown_pieces_de"}
    assert "no images: image recalls are left out" in capsys.readouterr().out
    options = {"images": str(folder), "captions": str(folder / "names.txt")}
    whole = evaluate(tiny_model, Multi30k(data=str(folder), **options), folder).metrics
    assert {"mean_recall_en", "mean_recall_de"} == whole.keys() - texts.keys()


def test_compressed_captions_are_read(folder):
    path = folder / "test_2016_flickr.de"
    with gzip.open(f"{path}.gz", "wt") as file:
        file.write(path.read_text())
    plain = Multi30k(data=str(folder)).open().captions
    path.unlink()
    assert Multi30k(data=str(folder)).open().captions == plain


def test_unusable_data_name_their_setting(folder, tmp_path):
    options = {"data": str(folder), "images": str(folder), "captions": str(folder / "names.txt")}
    (folder / "3.jpg").unlink()
    with pytest.raises(MissingInputError, match=r"\(1 missing\)") as caught:
        Multi30k(**options).open()
    assert (caught.value.setting, caught.value.place.file) == ("images", str(folder / "3.jpg"))
    (folder / "names.txt").write_text("1.jpg\n")
    with pytest.raises(InputError, match="1 names for 15 captions") as caught:
        Multi30k(**options).open()
    assert caught.value.setting == "captions"
    (folder / "names.txt").write_bytes(b"caf\xe9.jpg\n")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        Multi30k(**options).open()
    assert caught.value.setting == "captions"
    (folder / "names.txt").unlink()
    with pytest.raises(MissingInputError, match="no such file") as caught:
        Multi30k(**options).open()
    found = caught.value.setting, caught.value.place.file
    assert found == ("captions", str(folder / "names.txt"))
    with pytest.raises(MissingInputError, match="no test_2016_coco.en") as caught:
        Multi30k(data=str(folder), split="test_2016_coco").open()
    assert caught.value.setting == "data"
    path = folder / "test_2016_flickr.de"
    for text, problem in (
        (b"one\n", "the files test_2016_flickr.* differ in length"),
        (b"one\n \nthree\n", f"{path} line 2: empty caption"),
        (b"un caf\xe9\n", f"{path}: not UTF-8; convert it"),
    ):
        path.write_bytes(text)
        with pytest.raises(InputError, match=re.escape(problem)):
            Multi30k(data=str(folder)).open()
    path.unlink()
    path.with_suffix(".de.gz").write_bytes(gzip.compress(b"one\n" * 15)[:-6])
    with pytest.raises(InputError, match=re.escape(f"{path}.gz: not readable")):
        Multi30k(data=str(folder)).open()
