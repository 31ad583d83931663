"""Packing with ``prepare_data.py``, and reading the shards; a notebook trains on them too."""

import csv
import dataclasses
import json
import os
import signal
import zipfile

import pytest
from conftest import SHARED
from in_process import run_recipe_here
from short_runs import settings_of

from align_keras.data import pipeline, records
from align_keras.data.preparation import filters, preparing
from align_keras.runs import pretraining_data, pretraining_evaluation, pretraining_run


def prepare_data(*flags):
    """Runs the command; returns its exit code or its last line."""
    return run_recipe_here("prepare_data.py", *flags)


def test_a_packed_folder_is_read_whole_by_a_run(tiny_model, tiny_run, scene_shards, tmp_path):
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
    flags = (f"--captions={folder / 'table.csv'}", f"--output={output}")
    assert prepare_data(*flags, "--carry", "class_name=kind") is None
    pattern = [f"{output}-*.tfrecord"]
    sizes = dict.fromkeys(("image_size", "resize_size", "sequence_length"))
    settings = settings_of((pattern, pattern), tmp_path / "run", model=str(tiny_run), **sizes)
    data = pretraining_data.with_sizes(settings.data, settings.model.model)
    opened = pretraining_data.open_data(data, settings.model, tmp_path / "run", 40, seed=0)
    (batch,) = pipeline.training_dataset(opened.counts, opened.preprocessor, 40).take(1)
    assert len(set(batch["image_ids"].numpy().tolist())) == 40
    assert not batch["lost"].numpy().any()
    run = pretraining_run.PretrainingRun(settings, tmp_path, None, opened, tiny_model, None)
    metrics, _, held_out = pretraining_evaluation.evaluate_held_out(run)
    assert len(held_out["rows"]) == 40
    assert len(opened.zero_shot.class_names) > 10
    assert metrics["i2t_recall_at_10"] is not None
    assert metrics["zero_shot_top_1"] is not None
    assert metrics["zero_shot_unseen_top_1"] is None


def test_photographs_are_packed_with_their_bytes(tmp_path, capsys):
    source = SHARED / "data" / "captions" / "coco_mini"
    if not source.exists():
        pytest.skip(f"no shared data at {source}; a rendered folder is packed above")
    output = tmp_path / "coco" / "test"
    flags = (f"--captions={source / 'pairs.jsonl'}", f"--output={output}", "--select", "split=test")
    assert prepare_data(*flags) is None
    printed = capsys.readouterr().out
    *lines, inspect, train = printed.splitlines()
    assert lines == [
        f"895 of 895 pairs in {output}-?????.tfrecord",
        f"report: {output}-report.html",
        *("", "next:"),
    ]
    assert inspect.endswith(f"inspect_data.py --data='{output}-?????.tfrecord'")
    assert "pretrain.py --train-data=TRAINING_SHARDS" in train
    assert f"--eval-data='{output}-?????.tfrecord'" in train
    shards = records.find_shards(f"{output}-*.tfrecord")
    assert sum(records.count_records(shard) for shard in shards) == 895
    assert not list(output.parent.glob("*left_out*"))
    assert not list(output.parent.glob("*unfinished*"))
    with zipfile.ZipFile(source / "images-00.zip") as archive:
        pair = records.parse_pair(next(records.read_frames(shards[0])))
        name = pair["image_id"].decode().removeprefix("images-00.zip/")
        assert pair["jpg"] == archive.read(name)
    assert prepare_data(*flags) == (
        f"prepare_data.py: --output: {output}-00000.tfrecord already exists; remove it or "
        "choose another"
    )


def test_it_counts_what_it_leaves_out(tmp_path, capsys):
    table, output = tmp_path / "t.jsonl", tmp_path / "out" / "train"
    table.write_text('{"image": "no.jpg", "caption": "x"}\n[1]\n')
    assert prepare_data(f"--captions={table}", f"--output={output}") == (
        f"prepare_data.py: --captions: no pair of {table} could be packed"
    )
    printed = capsys.readouterr().out
    assert printed.startswith("none of 2 pairs was kept\n")
    assert "left out 1: image file missing" in printed
    assert "left out 1: not a JSON object" in printed
    lines = (tmp_path / "out" / "train-left_out.jsonl").read_text().splitlines()
    assert {json.loads(line)["where"] for line in lines} == {"line 1", "line 2"}


def test_a_packing_of_nothing_can_be_mended(scene_shards, tmp_path):
    pair = records.parse_pair(next(records.read_frames(scene_shards[0][0])))
    table, output = tmp_path / "t.jsonl", tmp_path / "out" / "train"
    table.write_text('{"image": "a.jpg", "caption": "x", "kind": null}\n')
    flags = (f"--captions={table}", f"--output={output}")
    assert prepare_data(*flags) == (
        f"prepare_data.py: --captions: no pair of {table} could be packed"
    )
    assert prepare_data(*flags, "--carry", "class_name=kind") == (
        f"prepare_data.py: --carry: {table}, column kind: every row is empty there"
    )
    (tmp_path / "a.jpg").write_bytes(pair["jpg"])
    assert prepare_data(*flags) is None
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    shard = ["train-00000.tfrecord", "train-00000_stats.json"]
    assert names == [*shard, "train-checksums.json", "train-report.html", "train-report.json"]


def test_a_packing_that_loses_most_pairs_does_not_suggest_training(scene_shards, tmp_path, capsys):
    pair = records.parse_pair(next(records.read_frames(scene_shards[0][0])))
    (tmp_path / "a.jpg").write_bytes(pair["jpg"])
    rows = [{"image": image, "caption": "x"} for image in ("a.jpg", "b.jpg", "c.jpg")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output = tmp_path / "out" / "train"
    assert prepare_data(f"--captions={tmp_path / 't.jsonl'}", f"--output={output}") is None
    *_, warning, _, head, inspect = capsys.readouterr().out.splitlines()
    assert warning == "more than half of the pairs were left out: read the report before you train"
    assert head == "next:"
    assert "inspect_data.py" in inspect


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_packing_that_a_signal_ends_leaves_nothing(number, monkeypatch, tmp_path, capsys):
    def tell(*_):
        assert (tmp_path / "out" / "b.unfinished").exists()
        os.kill(os.getpid(), number)

    monkeypatch.setattr("align_keras.data.preparation.single_machine.RecordSorter", tell)
    (tmp_path / "a.csv").write_text("image,caption\na.jpg,a b\n")
    flags = (f"--captions={tmp_path}/a.csv", f"--output={tmp_path}/out/b")
    assert prepare_data(*flags) == 128 + number
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prepare_data.py: ")
    assert line.endswith("; nothing was written; run it again")
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture
def table(tmp_path):
    """A table of one pair."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"image": "a.jpg", "caption": "a b c"}\n')
    return path


@pytest.mark.parametrize(
    ("flags", "rules"),
    [
        (
            ("--rules=paper", "--without", "small_image", "--max-words=7"),
            dataclasses.replace(filters.Rules(), min_side_above=None, max_words=7),
        ),
        (("--max-words=7",), dataclasses.replace(filters.NO_RULES, max_words=7)),
    ],
)
def test_rules_are_switched_one_by_one(flags, rules, table, tmp_path):
    output = tmp_path / "out"
    assert prepare_data(f"--captions={table}", f"--output={output}", "--table-only", *flags) is None
    report = json.loads((tmp_path / "out-report.json").read_text())
    assert report["thresholds"] == dataclasses.asdict(rules)


def test_what_follows_two_dashes_is_beams(table, tmp_path, monkeypatch):
    outputs = []

    def prepare(source, output, *_, **__):
        outputs.append(output)
        return {"pairs_in": 1, "pairs_out": 1, "pairs_turned_upright": 0, "reasons": {}}

    monkeypatch.setattr(preparing, "prepare", prepare)
    flags = (f"--captions={table}", f"--output={tmp_path / 'out'}", "--engine=beam")
    assert prepare_data(*flags, "--", "--runner=FlinkRunner", "--x", "1") is None
    (output,) = outputs
    assert output.engine == "beam"
    assert output.beam_options == ("--runner=FlinkRunner", "--x", "1")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            "--captions=",
            "--captions: there is no source of pairs; give either a table here or --source",
        ),
        (
            "--source=x",
            "--captions: there are two sources of pairs; give either a table here or --source",
        ),
        ("--captions=no.csv", "--captions: no file no.csv"),
        ("--images=/none", "--images: no folder /none"),
        (
            "--min-words=9 --max-words=4",
            "--min-words: 9 is above the maximum, 4; lower it, or raise --max-words",
        ),
        ("--frequent-ngrams=-1", "--frequent-ngrams: must not be below 0, is -1"),
        ("--shard-size=0", "--shard-size: must be at least 1, not 0"),
        ("--language=xx", "--language: 'xx' must be one of ar bg"),
        (
            "--evaluation-images=/none/*",
            "--evaluation-images: no file matches '/none/*'; give a folder, a table, or "
            "a quoted pattern of shards",
        ),
        (
            "--near-duplicate-model=x",
            "--near-duplicate-model: there are no evaluation images to compare",
        ),
        (
            "--evaluation-images={photos} --near-duplicate-model=/none",
            "--near-duplicate-model: /none: no such folder",
        ),
        (
            "--table-only --evaluation-images=x",
            "--evaluation-images: cannot be compared with, since no image is opened; leave out "
            "this flag or --table-only",
        ),
        ("--select image=none", "--captions: {table}: no row is selected; image is "),
        ("--select split", "--select: 'split' must be COLUMN=VALUE"),
        ("--carry txt=x", "--carry: txt is a field that every record has; choose another"),
        ("--captions= --source=/none", "--source: /none is neither tfds:NAME nor a folder"),
    ],
)
def test_bad_settings_are_one_line(flags, line, table, scene_photos, tmp_path):
    flags = flags.format(photos=scene_photos)
    given = f"--captions={table} --output={tmp_path / 'out' / 'train'} {flags}"
    ended = prepare_data(*given.split())
    assert ended.startswith(f"prepare_data.py: {line.format(table=table)}")
    assert "\n" not in ended
    assert not (tmp_path / "out").exists()
