"""Members of tar files become samples: none are merged, and none are lost silently."""

import io
import tarfile

import pytest

from align_keras.data.examples.opening import open_downloads
from align_keras.data.preparation import filters
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.judging import Preparation

APPLE = b"\0\x05\x16\x07\0\x02\0\0Mac OS X"


def write(path, names):
    """Writes a tar file with members of these names; the content of each shows its name."""
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            data = APPLE if "._" in name else name.encode()
            if name == "data":
                member.type, data = tarfile.DIRTYPE, b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def samples(folder, *names):
    """The member names of the image and the caption of each sample."""
    source = open_downloads(write(folder / "0.tar", names))
    found = []
    for example in source.read(source.parts[0]):
        try:
            image = example.load().decode()
        except OSError as error:
            image = str(error)
        found.append((image, *example.captions))
    assert source.count == len(found)
    return found


PAIRS = [("0.jpg", "0.txt"), ("1.jpg", "1.txt"), ("2.jpg", "2.txt")]
FLAT = [name for pair in PAIRS for name in pair]


@pytest.mark.parametrize(
    "names",
    [
        FLAT,
        [*(pair[0] for pair in PAIRS), *(pair[1] for pair in PAIRS)],
        [f"./{more}{name}" for name in FLAT for more in ("._", "")],
        ["data", *FLAT, "__MACOSX/0.jpg", "__MACOSX/._0.jpg", ".cache/0.jpg", ".cache/0.txt"],
    ],
)
def test_folders_hidden_files_and_orders_do_not_matter(names, tmp_path):
    found = [tuple(name.removeprefix("./") for name in own) for own in samples(tmp_path, *names)]
    assert found == PAIRS


def test_names_with_dots_do_not_merge_samples(tmp_path):
    pairs = [(f"2021.05.0{i}.jpg", f"2021.05.0{i}.txt") for i in range(3)]
    names = [name for pair in pairs for name in pair]
    assert samples(tmp_path, *names) == pairs
    assert samples(tmp_path, *names, "2021.jpg", "2021.txt") == [("2021.jpg", "2021.txt"), *pairs]
    # Only images; and a text whose image is missing.
    assert samples(tmp_path, "a.0.jpg", "a.1.jpg") == [("a.0.jpg",), ("a.1.jpg",)]
    assert samples(tmp_path, *names[1:]) == [("no jpg; has txt", pairs[0][1]), *pairs[1:]]


def test_further_members_of_a_sample_are_no_samples(tmp_path):
    names = ["0.jpg", "0.seg.png", "0.cls", "0.txt", "../1.jpg", "../1.txt", "x/0.jpg", "x/0.txt"]
    pairs = [("0.jpg", "0.txt"), ("../1.jpg", "../1.txt"), ("x/0.jpg", "x/0.txt")]
    assert samples(tmp_path, *names) == pairs


def test_the_same_name_again_is_another_sample(tmp_path):
    assert samples(tmp_path, *FLAT[:2], *FLAT[:2]) == PAIRS[:1] * 2


def test_a_lost_sample_says_what_it_has(tmp_path):
    names = ["0.input.jpg", "0.outputs.txt", "1.txt", "2.jpg", "3.JPEG", "3.TXT", "4.tiff", "4.txt"]
    names += ["x/README"]
    source = open_downloads(write(tmp_path / "0.tar", names))
    tally = Tally()
    list(Preparation(source, filters.NO_RULES, table_only=False).kept(source.parts[0], (), tally))
    assert tally.reasons == {
        "no field captions, caption, txt or text, only input.jpg, outputs.txt": 1,
        "no jpg; has txt": 1,
        "no field captions, caption, txt or text, only jpg": 1,
        "image does not decode": 1,
        "no jpg; has tiff, txt": 1,
        "no field captions, caption, txt or text, only a file without extension": 1,
    }
