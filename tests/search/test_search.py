import dataclasses
import functools
import json
import runpy
import sys
import zipfile

import evaluate
import numpy as np
import pytest
import search
from conftest import ROOT, SHARED, TINY_IMAGE_SIZE, TINY_SEQUENCE, build_tiny_model
from PIL import Image

from align_keras import AlignPreprocessor
from align_keras.data import records
from align_keras.evaluation.composed_search import compose


@pytest.fixture(scope="module")
def run(tmp_path_factory, pieces):
    """An untrained model of two layers, as a run leaves it."""
    run = tmp_path_factory.mktemp("run")
    preprocessor = AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)
    model = build_tiny_model(preprocessor=preprocessor, vocabulary_size=len(pieces))
    model.save_to_preset(run / "preset")
    return run


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """Spares loading the same preset for every command."""
    for module in (search, evaluate):
        monkeypatch.setattr(module, "load_model", load_model)


load_model = functools.cache(evaluate.load_model)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, scene_shards):
    """A table of thirty scenes in an archive, two captions each."""
    folder = tmp_path_factory.mktemp("photos")
    frames = [frame for shard in scene_shards[1] for frame in records.read_frames(shard)]
    rows = []
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number, frame in enumerate(frames):
            pair = records.parse_pair(frame)
            archive.writestr(f"{number:02}.jpg", pair["jpg"])
            (folder / f"{number:02}.jpg").write_bytes(pair["jpg"])
            captions = [pair["txt"].decode(), f"picture {number}"]
            row = {"image": f"{number:02}.jpg", "archive": "images.zip", "captions": captions}
            rows.append({**row, "split": "test" if number % 2 else "train"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def made(run, photos, tmp_path_factory):
    """An index of the test images, searched exactly, and one in lists."""
    output = tmp_path_factory.mktemp("made")
    for name, exact_below in (("exact", 1_000), ("lists", 10)):
        settings = search.IndexSettings(
            str(run), str(photos / "pairs.jsonl"), str(output / name), ("split=test",)
        )
        search.main(dataclasses.replace(settings, exact_below=exact_below, lists=4))
    return output


def test_recall_through_the_index_is_that_of_evaluation(made, run, photos, tmp_path, capsys):
    data = str(photos / "pairs.jsonl")
    settings = evaluate.EvaluateSettings(
        model=str(run), task="retrieval:photos", data=data, output=str(tmp_path), cache=""
    )
    expected = evaluate.main(settings)
    for name in ("exact", "lists"):
        asked = search.EvaluateSettings(index=str(made / name), probes=4, data=data)
        metrics = search.main(asked)
        assert metrics == {key: expected[key] for key in metrics}
        assert metrics.keys() == {f"image_retrieval_recall@{k}" for k in (1, 5, 10)}
    printed = capsys.readouterr().out
    assert "15 images, 30 captions, exact" in printed
    assert "15 images, 30 captions, approximate" in printed
    # In one list of four not all that is right is found.
    metrics = search.main(dataclasses.replace(asked, probes=1))
    assert metrics["image_retrieval_recall@10"] < expected["image_retrieval_recall@10"]
    with pytest.raises(ValueError, match="--data: its images are not those of the index"):
        search.main(dataclasses.replace(asked, split="train"))


def test_photographs_of_the_world_are_found_as_evaluation_finds_them(run, tmp_path):
    table = SHARED / "data" / "captions" / "coco_mini" / "pairs.jsonl"
    if not table.exists():
        pytest.skip(f"no shared data at {table}; rendered scenes are searched above")
    expected = evaluate.main(
        evaluate.EvaluateSettings(
            model=str(run), task="retrieval:mini", data=str(table), output=str(tmp_path), cache=""
        )
    )
    for exact_below in (1_000, 100):
        output = str(tmp_path / f"index-{exact_below}")
        search.main(search.IndexSettings(str(run), str(table), output, exact_below=exact_below))
        found = search.main(search.EvaluateSettings(output, data=str(table)))
        assert found == {name: expected[name] for name in found}


def ask(made, tmp_path, **options):
    sheet = str(tmp_path / "sheet.png")
    return search.main(search.QuerySettings(str(made / "exact"), sheet=sheet, **options))


def test_queries_are_composed_as_in_the_paper(made, run, photos, tmp_path, capsys):
    model = load_model(str(run))
    names = [f"images.zip/{number:02}.jpg" for number in range(1, 30, 2)]
    images = model.encode_images([photos / name.partition("/")[2] for name in names])
    image, words, others = images[3], *model.encode_texts(["a red ring", "a blue star"])
    expectations = {
        words.tobytes(): {"text": "a red ring"},
        image.tobytes(): {"image": str(photos / "07.jpg")},
        compose(image, words).tobytes(): {"image": str(photos / "07.jpg"), "text": "a red ring"},
        compose(image, words, -1.5).tobytes(): {
            "image": str(photos / "07.jpg"),
            "text": "a red ring",
            "weight": -1.5,
        },
        compose(words, others, -0.5).tobytes(): {
            "text": "a red ring",
            "without": "a blue star",
            "without_weight": 0.5,
        },
    }
    for query, options in expectations.items():
        scores = images @ np.frombuffer(query, np.float32)
        found = ask(made, tmp_path, results=5, **options)
        assert [match.name for match in found] == [names[row] for row in np.argsort(-scores)[:5]]
        np.testing.assert_allclose(
            [match.score for match in found], np.sort(scores)[::-1][:5], atol=1e-5
        )
        first = capsys.readouterr().out.splitlines()[0]
        assert first.split()[:3] == ["1", f"{found[0].score:.3f}", found[0].name]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1_000


def test_the_terminal_is_not_steered_by_an_index():
    assert search.printable("a\x1b[2J\nb\ud800 é") == "a�[2J�b� é"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to look for"),
        ({"text": "a", "results": 0}, "the number of results must be from 1 to 200"),
        ({"text": "x" * 2000}, "a text of 2,000 characters"),
        ({"image": "none.jpg"}, "--image: none.jpg: No such file"),
        ({"image": "{photos}"}, "--image: .*: not a file"),
        ({"image": "{photos}/pairs.jsonl"}, "the image: does not decode"),
        ({"text": "a", "probes": 0}, "--probes: must be at least 1"),
    ],
)
def test_a_wrong_query_is_one_line(options, message, made, photos, tmp_path):
    if "image" in options:
        options = {**options, "image": options["image"].format(photos=photos)}
    with pytest.raises(ValueError, match=message) as raised:
        ask(made, tmp_path, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--batch-size: must be at least 1"),
        ({"thumbnail_size": -1}, "--thumbnail-size: must be at least 0"),
        ({"thumbnail_size": 5000}, "--thumbnail-size: must be at most 1024"),
        ({"images": "none"}, "--images: no file matches 'none'"),
        ({"select": ("split=dev",)}, "--images: .*: no row with split=dev"),
        ({"model": "none"}, "--model: none: no such folder"),
        ({"output": "{photos}"}, "--output: .* holds .*, which is no part of an index"),
    ],
)
def test_a_wrong_index_is_one_line(options, message, run, photos, tmp_path):
    options = {"images": str(photos / "pairs.jsonl"), "output": str(tmp_path), **options}
    options["output"] = options["output"].format(photos=photos)
    with pytest.raises((ValueError, OSError), match=message) as raised:
        search.main(search.IndexSettings(**{"model": str(run), **options}))
    assert "\n" not in str(raised.value)


def test_what_an_index_names_is_not_fetched_unasked(made, tmp_path):
    header = json.loads((made / "exact" / "index.json").read_text())
    for path in (made / "exact").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = json.dumps({**header, "model": "hf://stranger/model"})
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match="--model: the index names hf://stranger/model; to fetch"):
        search.main(search.QuerySettings(str(tmp_path), text="a"))
    (tmp_path / "index.json").write_text(json.dumps({**header, "fingerprint": "0" * 64}))
    with pytest.raises(ValueError, match="--model: the index is of another model"):
        search.main(search.QuerySettings(str(tmp_path), text="a"))


def test_the_command_ends_in_one_line_and_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["search.py", "query", "two dogs", "--index=none"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / "search.py"), run_name="__main__")
    assert stopped.value.code == (
        "search.py: --index: no finished index in none; make one with index"
    )
