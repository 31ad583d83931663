import json
import os
import sys
import time
import zipfile

import numpy as np
import pytest
from conftest import TINY_IMAGE_SIZE, TINY_SEQUENCE, build_tiny_model
from PIL import Image

from align_keras import AlignPreprocessor
from align_keras.data import records
from align_keras.data.examples import image_sources, packing
from align_keras.search import exact_search, indexing, inverted_lists
from align_keras.search.image_index import ImageIndex


@pytest.fixture(scope="module")
def model(pieces):
    preprocessor = AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)
    return build_tiny_model(preprocessor=preprocessor, vocabulary_size=len(pieces))


@pytest.fixture(scope="module")
def encoded(scene_shards):
    """Thirty encoded images."""
    frames = [frame for shard in scene_shards[1] for frame in records.read_frames(shard)]
    return [records.parse_pair(frame)["jpg"] for frame in frames]


@pytest.fixture
def photos(tmp_path, encoded):
    """A folder of them with one below it, a damaged one, an empty one and a broken link."""
    folder = tmp_path / "photos"
    for number, data in enumerate(encoded):
        path = folder / ("more/deep" if number % 3 else "") / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "bad.jpg").write_bytes(encoded[0][:200])
    (folder / "empty.PNG").touch()
    (folder / "notes.txt").write_text("no image")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "more" / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    return folder


def build(model, photos, output, **options):
    source = image_sources.open_images(photos)
    header, _ = indexing.build_index(model, source, output, batch_size=8, **options)
    return header, ImageIndex(output)


# === Search ===


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("chunk", [1, 40, 1 << 22])
def test_exact_search_is_that_of_a_sorted_list(chunk, monkeypatch):
    monkeypatch.setattr(exact_search, "_CHUNK_NUMBERS", chunk)
    monkeypatch.setattr(exact_search, "_QUERIES", 3)
    rng = np.random.default_rng(0)
    embeddings, queries = unit(rng, 57, 8), unit(rng, 7, 8)
    places, scores = exact_search.ranked(
        queries, embeddings, exact_search.nearest(queries, embeddings, 5)
    )
    expected = queries.astype(float) @ embeddings.T.astype(float)
    np.testing.assert_array_equal(places, np.argsort(-expected)[:, :5])
    np.testing.assert_allclose(scores, np.sort(expected)[:, ::-1][:, :5], atol=1e-6)


def test_equal_images_tie_and_broken_embeddings_come_last():
    rng = np.random.default_rng(0)
    embeddings = unit(rng, 20, 8)
    embeddings[[3, 11, 19]] = embeddings[7]
    embeddings[5] = np.nan
    query = embeddings[7:8]
    places, scores = exact_search.ranked(
        query, embeddings, exact_search.nearest(query, embeddings, 20)
    )
    assert places[0, :4].tolist() == [3, 7, 11, 19]
    assert len(set(scores[0, :4].tolist())) == 1
    assert places[0, -1] == 5


def test_opening_every_list_is_exact_and_a_few_nearly(model):
    rng = np.random.default_rng(0)
    centres = unit(rng, 20, 16)
    embeddings = centres[rng.integers(20, size=2000)] + 0.2 * unit(rng, 2000, 16)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    centroids, lists = inverted_lists.cluster(embeddings, 40)
    assert centroids.shape == (40, 16)
    np.testing.assert_array_equal(lists, np.argmax(embeddings @ centroids.T, 1))
    index = inverted_lists.InvertedLists(embeddings, centroids, lists)
    queries = embeddings[::50]
    right = exact_search.nearest(queries, embeddings, 5)

    def found(probes):
        places = index.search(queries, 5, probes)
        return np.mean([len({*own} & {*row}) for own, row in zip(places, right, strict=True)]) / 5

    # Close neighbours swap in float16.
    assert found(40) > 0.97
    assert found(8) > 0.9
    assert found(1) < found(40)


# === Building ===


def test_a_folder_is_embedded_and_what_is_unreadable_listed(model, photos, tmp_path):
    header, index = build(model, photos, tmp_path / "index", thumbnail_size=10)
    names = [index.label(place).name for place in range(len(index))]
    assert len(names) == header.count == 30
    expected = model.encode_images([photos / name for name in names])
    np.testing.assert_allclose(index.embeddings, expected, atol=1e-5)
    lines = (tmp_path / "index" / "unreadable.jsonl").read_text().splitlines()
    reasons = {row["name"]: row["reason"] for row in map(json.loads, lines)}
    assert reasons == {
        "bad.jpg": "does not decode",
        "empty.PNG": "empty",
        "gone.jpg": "no such file",
        "pipe.jpg": "not a file",
    }
    places, scores = index.search(expected, 3)
    assert places[:, 0].tolist() == list(range(30))
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-5)
    (tmp_path / "thumbnail.jpg").write_bytes(index.thumbnail(29))
    with Image.open(tmp_path / "thumbnail.jpg") as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) == 10


def test_half_precision_takes_half_and_finds_the_same(model, photos, tmp_path):
    _, whole = build(model, photos, tmp_path / "whole")
    _, half = build(model, photos, tmp_path / "half", precision="float16", thumbnail_size=0)
    size = (tmp_path / "whole" / "embeddings.bin").stat().st_size
    assert 2 * (tmp_path / "half" / "embeddings.bin").stat().st_size == size
    np.testing.assert_allclose(half.embeddings, whole.embeddings, atol=1e-3)
    assert half.thumbnail(0) == b""


def test_tables_archives_and_shards_give_the_same(model, encoded, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number, data in enumerate(encoded):
            archive.writestr(f"{number}.jpg", data)
    rows = [
        {
            "image": f"{n}.jpg",
            "archive": "images.zip",
            "captions": [f"photo {n}", "b"],
            "kind": n % 2,
        }
        for n in range(30)
    ]
    rows += [rows[0], {"image": "31.jpg", "archive": "images.zip", "kind": 0}]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with records.ShardWriter(str(tmp_path / "shard"), 20) as writer:
        for number, data in enumerate(encoded):
            for text in (f"photo {number}", "b"):
                writer.write(records.make_record(data, text, "k", image_id=f"image {number}"))
    path = tmp_path / "shard-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    header, by_table = build(model, table, tmp_path / "table")
    shards_header, by_shards = build(model, tmp_path / "shard-*.tfrecord", tmp_path / "shards")
    assert (header.count, header.unreadable) == (30, 1)
    assert (shards_header.count, shards_header.unreadable) == (30, 1)
    np.testing.assert_allclose(by_table.embeddings, by_shards.embeddings, atol=1e-6)
    assert vars(by_table.label(4)) == {"name": "images.zip/4.jpg", "caption": "photo 4"}
    assert vars(by_shards.label(4)) == {"name": "image 4", "caption": "photo 4"}
    assert image_sources.open_images(table, ("kind=1",)).count == 15


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_that_was_cut_off_goes_on(after, model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_COMMIT_SECONDS", 0.0)
    build(model, photos, tmp_path / "whole")
    times = (photos / "00.jpg").stat()
    source = image_sources.open_images(photos)
    calls = []

    def stop(done, _):
        calls.append(done)
        if len(calls) == after:
            raise KilledError

    with pytest.raises(KilledError):
        indexing.build_index(model, source, tmp_path / "cut", batch_size=8, progress=stop)
    # As a run that is killed while it writes.
    for name in ("embeddings.bin", "labels.bin", "thumbnails.ends", "unreadable.jsonl"):
        with (tmp_path / "cut" / name).open("ab") as file:
            file.write(b"half")
    with pytest.raises(FileNotFoundError, match="no finished index"):
        ImageIndex(tmp_path / "cut")
    os.utime(photos / "00.jpg", (1, 1))
    with pytest.raises(ValueError, match="--images: .* other images, or some were added"):
        build(model, photos, tmp_path / "cut")
    os.utime(photos / "00.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    _, embedded = indexing.build_index(model, source, tmp_path / "cut", batch_size=8)
    # Of 34 images four are unreadable, so some of the first batches' were done.
    assert 30 - 8 * after <= embedded < 30
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "cut").iterdir())
    for name in names:
        one, other = ((tmp_path / way / name).read_bytes() for way in ("whole", "cut"))
        if name == "embeddings.bin":
            # Other batches, other sums.
            one, other = (np.frombuffer(data, "<f4") for data in (one, other))
            np.testing.assert_allclose(one, other, atol=1e-5)
        else:
            assert one == other, name
    # The finished index is left as it is.
    assert indexing.build_index(model, source, tmp_path / "cut")[1] == 0


def test_changes_are_noticed(model, photos, tmp_path, pieces):
    output = tmp_path / "index"
    build(model, photos, output)
    with pytest.raises(ValueError, match=r"--precision: .* was begun with float32, not float16"):
        build(model, photos, output, precision="float16")
    assert not (output / "lock").exists()
    weight = model.backbone.image_projection.weights[0]
    before = weight.numpy()
    weight.assign(before + 1e-3)
    with pytest.raises(ValueError, match="--model: .* was begun with another model"):
        build(model, photos, output)
    weight.assign(before)
    time.sleep(0.01)
    (photos / "00.jpg").write_bytes((photos / "03.jpg").read_bytes())
    with pytest.raises(ValueError, match="--images: .* other images, or some were added"):
        build(model, photos, output)
    header, index = build(model, photos, output, restart=True)
    assert header.count == 30
    np.testing.assert_array_equal(index.embeddings[0], index.embeddings[1])


def test_large_indexes_have_lists(model, photos, tmp_path):
    header, index = build(model, photos, tmp_path / "index", exact_below=30, num_lists=5)
    assert header.lists == 5
    assert index.is_approximate
    queries = np.asarray(index.embeddings)
    whole = ImageIndex(tmp_path / "index", exact=True)
    assert not whole.is_approximate
    for count in (5, 30):
        places, _ = index.search(queries, count, probes=5)
        exact, _ = whole.search(queries, count)
        np.testing.assert_array_equal(places, exact)
    places, scores = index.search(queries, 30, probes=1)
    assert places.min() == -1
    assert np.isneginf(scores[places == -1]).all()
    # Divided anew, not embedded anew.
    source = image_sources.open_images(photos)
    before = (tmp_path / "index" / "embeddings.bin").stat().st_ino
    for lists, exact_below in ((3, 30), (0, 31)):
        header, embedded = indexing.build_index(
            model, source, tmp_path / "index", exact_below=exact_below, num_lists=lists
        )
        assert (header.lists, header.count, embedded) == (lists, 30, 0)
        index = ImageIndex(tmp_path / "index")
        assert index.search(queries, 1, probes=5)[0][:, 0].tolist() == list(range(30))
    assert (tmp_path / "index" / "embeddings.bin").stat().st_ino == before
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert not names & {"centroids.bin", "lists.bin", "progress.json", "lock"}


def test_faiss_is_not_needed_for_exact_searches(model, photos, tmp_path, monkeypatch):
    build(model, photos, tmp_path / "index", exact_below=30, num_lists=5)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert len(ImageIndex(tmp_path / "index", exact=True)) == 30
    with pytest.raises(ValueError, match=r"need faiss; pip install .*\[search\]"):
        ImageIndex(tmp_path / "index")
    with pytest.raises(ValueError, match=r"need faiss; pip install .*\[search\]"):
        build(model, photos, tmp_path / "other", exact_below=30)


def test_an_index_of_one_image(model, encoded, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded[0])
    header, index = build(model, tmp_path / "photos", tmp_path / "index", exact_below=1)
    assert (header.count, header.lists) == (1, 1)
    for own in (index, ImageIndex(tmp_path / "index", exact=True)):
        places, scores = own.search(own.embeddings, 24)
        assert places.tolist() == [[0]]
        np.testing.assert_allclose(scores, 1.0, atol=1e-6)
    # What is no text can be printed and sent all the same.
    assert index.label(0).name == "caf?.jpg"


def test_members_that_lie_about_their_sizes_are_listed(model, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MAX_FILE_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.jpg", encoded[0])
        archive.writestr("bomb.jpg", bytes(2 << 20))
        archive.writestr("short.jpg", encoded[1], zipfile.ZIP_STORED)
        short = archive.getinfo("short.jpg")
        short.compress_size = short.file_size = 1 << 19
    rows = [{"image": f"{name}.jpg", "archive": "images.zip"} for name in ("good", "bomb", "short")]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    header, index = build(model, table, tmp_path / "index")
    assert (header.count, index.label(0).name) == (1, "images.zip/good.jpg")
    lines = (tmp_path / "index" / "unreadable.jsonl").read_text().splitlines()
    reasons = {row["name"]: row["reason"] for row in map(json.loads, lines)}
    assert reasons.keys() == {"images.zip/bomb.jpg", "images.zip/short.jpg"}
    assert reasons["images.zip/bomb.jpg"] == "more than 1 MiB"


def test_an_error_without_words_is_a_reason_too(model):
    def load():
        raise EOFError  # as zipfile does

    image = image_sources.SourceImage("x.jpg", load)
    assert indexing._prepare(image, model.preprocessor, 0) == "EOFError()"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("none", "--images: no file matches"),
        ("none.csv", "--images: no file"),
        ("empty", "--images: .*empty: no image in it; images end in .jpg"),
        ("bad.csv", "--images: .*bad.csv line 2: no image column"),
        ("all_bad", "--images: none of 1 images is readable"),
    ],
)
def test_unusable_images_are_one_line(images, message, model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "all_bad").mkdir()
    (tmp_path / "all_bad" / "x.jpg").write_text("no")
    (tmp_path / "bad.csv").write_text("picture\nx.jpg\n")
    with pytest.raises((ValueError, OSError), match=message) as raised:
        build(model, tmp_path / images, tmp_path / "index")
    assert "\n" not in str(raised.value)


def test_other_peoples_folders_are_left_alone(model, photos, tmp_path):
    with pytest.raises(ValueError, match="--output: .* holds .*, which is no part of an index"):
        build(model, photos, photos)


# === Hostile indexes ===


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
def built(model, tmp_path_factory, encoded):
    folder = tmp_path_factory.mktemp("built")
    (folder / "photos").mkdir()
    for number, data in enumerate(encoded):
        (folder / "photos" / f"{number:02}.jpg").write_bytes(data)
    build(model, folder / "photos", folder / "index", exact_below=30, num_lists=5)
    return {path.name: path.read_bytes() for path in (folder / "index").iterdir()}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_index_is_one_clear_line(what, built, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    for name, data in built.items():
        (folder / name).write_bytes(data)
    HOSTILE[what](folder)
    with pytest.raises((ValueError, FileNotFoundError), match="^--index: .*index") as raised:
        index = ImageIndex(folder)
        for place in range(len(index)):
            index.label(place)
            index.thumbnail(place)
    assert "\n" not in str(raised.value)


def test_broken_embeddings_do_not_break_a_search(built, tmp_path):
    for name, data in built.items():
        (tmp_path / name).write_bytes(data)
    overwrite("embeddings.bin", b"\xff")(tmp_path)
    for exact in (True, False):
        _, scores = ImageIndex(tmp_path, exact).search(np.ones((1, 8)), 3)
        assert np.isneginf(scores).all()
