"""Packing with ``prepare_data.py``, and training on what it packs."""

import csv
import dataclasses
import json
import runpy
import sys
import zipfile

import prepare_data
import pretrain
import pytest
from conftest import ROOT, SHARED
from short_runs import settings_of

from align_keras.data import records
from align_keras.data.preparation import filters
from align_keras.errors import InputError
from align_keras.runs import command

pytestmark = pytest.mark.usefixtures("tiny_preset")


def test_a_packed_folder_is_trained_on(scene_shards, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "kind"])
        for shard in scene_shards[0][:4]:
            for record in records.read_frames(shard):
                pair = records.parse_pair(record)
                name = pair["key"].decode() + ".jpg"
                (folder / name).write_bytes(pair["jpg"])
                writer.writerow([name, pair["txt"].decode(), pair["class_name"].decode()])
    output = tmp_path / "shards" / "train"
    prepare_data.main(
        prepare_data.PrepareSettings(
            captions=str(folder / "table.csv"), output=str(output), carry=("class_name=kind",)
        )
    )
    pattern = [f"{output}-*.tfrecord"]
    metrics = pretrain.main(
        settings_of((pattern, pattern), tmp_path / "run", steps=1, warmup_steps=0)
    )
    assert metrics["num_pairs"] == 40
    assert metrics["num_classes"] > 10
    assert metrics["zero_shot_top_1"] is not None
    assert metrics["zero_shot_unseen_top_1"] is None


def test_photographs_are_packed_with_their_bytes(tmp_path):
    source = SHARED / "data" / "captions" / "coco_mini"
    if not source.exists():
        pytest.skip(f"no shared data at {source}; a rendered folder is packed above")
    output = tmp_path / "coco" / "test"
    settings = prepare_data.PrepareSettings(
        captions=str(source / "pairs.jsonl"), output=str(output), select=("split=test",)
    )
    prepare_data.main(settings)
    shards = records.find_shards(f"{output}-*.tfrecord")
    assert sum(records.count_records(shard) for shard in shards) == 895
    assert not list(output.parent.glob("*left_out*"))
    assert not list(output.parent.glob("*unfinished*"))
    with zipfile.ZipFile(source / "images-00.zip") as archive:
        pair = records.parse_pair(next(records.read_frames(shards[0])))
        name = pair["image_id"].decode().removeprefix("images-00.zip/")
        assert pair["jpg"] == archive.read(name)
    with pytest.raises(InputError) as caught:
        prepare_data.main(settings)
    line = f"--output: {output}-00000.tfrecord is there already; remove it or choose another"
    assert command.one_line(caught.value) == line


def test_prepare_data_counts_what_it_leaves_out(tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text('{"image": "no.jpg", "caption": "x"}\n[1]\n')
    settings = prepare_data.PrepareSettings(
        captions=str(tmp_path / "t.jsonl"), output=str(tmp_path / "out" / "train")
    )
    with pytest.raises(InputError, match="no pair of .* could be packed"):
        prepare_data.main(settings)
    printed = capsys.readouterr().out
    assert "left out 1: image file missing" in printed
    assert "left out 1: not a JSON object" in printed
    lines = (tmp_path / "out" / "train-left_out.jsonl").read_text().splitlines()
    assert {json.loads(line)["where"] for line in lines} == {"line 1", "line 2"}


def test_a_packing_of_nothing_can_be_mended(scene_shards, tmp_path):
    pair = records.parse_pair(next(records.read_frames(scene_shards[0][0])))
    (tmp_path / "t.jsonl").write_text('{"image": "a.jpg", "caption": "x", "kind": null}\n')
    settings = prepare_data.PrepareSettings(
        captions=str(tmp_path / "t.jsonl"), output=str(tmp_path / "out" / "train")
    )
    with pytest.raises(InputError, match="no pair of .* could be packed"):
        prepare_data.main(settings)
    with pytest.raises(InputError) as caught:
        prepare_data.main(dataclasses.replace(settings, carry=("class_name=kind",)))
    table = tmp_path / "t.jsonl"
    line = f"--carry: {table}, column kind: no row has a value there"
    assert command.one_line(caught.value) == line
    (tmp_path / "a.jpg").write_bytes(pair["jpg"])
    prepare_data.main(settings)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    shard = ["train-00000.tfrecord", "train-00000_stats.json"]
    assert names == [*shard, "train-report.html", "train-report.json"]


def test_an_interrupted_packing_says_so_in_one_line(monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["prepare_data.py", "--captions=a.csv", "--output=b"])
    monkeypatch.setattr("align_keras.data.examples.table_examples.read_table", interrupt)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / "prepare_data.py"), run_name="__main__")
    assert stopped.value.code.startswith("prepare_data.py: interrupted; ")


def test_rules_are_switched_one_by_one():
    settings = prepare_data.PrepareSettings(
        captions="x", output="y", rules="paper", without=("small_image",), max_words=7
    )
    rules = prepare_data.choose_rules(settings)
    assert rules == dataclasses.replace(filters.Rules(), min_side_above=None, max_words=7)
    settings = dataclasses.replace(settings, rules="none", without=())
    rules = prepare_data.choose_rules(settings)
    assert rules == dataclasses.replace(filters.NO_RULES, max_words=7)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"captions": ""},
            "--captions: there is no source of pairs; give either a table here or --source",
        ),
        (
            {"source": "x"},
            "--captions: there are two sources of pairs; give either a table here or --source",
        ),
        ({"captions": "no.csv"}, "--captions: no file no.csv"),
        ({"images": "/none"}, "--images: no folder /none"),
        (
            {"min_words": 9, "max_words": 4},
            "--min-words: 9 is more than the 4 allowed at most; lower it, or raise --max-words",
        ),
        ({"frequent_ngrams": -1}, "--frequent-ngrams: must not be below 0, is -1"),
        ({"shard_size": 0}, "--shard-size: must be at least 1, not 0"),
        ({"language": "xx"}, "--language: 'xx' must be one of ar bg"),
        (
            {"evaluation_images": "/none/*"},
            "--evaluation-images: no file matches '/none/*'; give a quoted pattern",
        ),
        ({"near_duplicate_model": "x"}, "--near-duplicate-model: there are no images to compare"),
        (
            {"table_only": True, "evaluation_images": "x"},
            "--evaluation-images: no image is opened to compare; leave out --table-only or this",
        ),
        ({"select": ("image=none",)}, "--captions: {table}: no row is selected; choose other"),
        ({"select": ("split",)}, "--select: 'split' must be COLUMN=VALUE"),
        ({"carry": ("txt=x",)}, "--carry: txt is a field that every record has; choose another"),
        ({"captions": "", "source": "/none"}, "--source: /none is neither tfds:NAME nor a folder"),
    ],
)
def test_bad_settings_are_one_line(options, line, tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text('{"image": "a.jpg", "caption": "a b c"}\n')
    options = {"captions": str(table), **options}
    settings = prepare_data.PrepareSettings(output=str(tmp_path / "out" / "train"), **options)
    with pytest.raises(InputError) as caught:
        prepare_data.main(settings)
    assert command.one_line(caught.value).startswith(line.format(table=table))
    assert not (tmp_path / "out").exists()
