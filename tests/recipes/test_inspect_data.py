import dataclasses
import json
import runpy
import shutil
import sys

import inspect_data
import pytest
import tensorflow as tf
from conftest import ROOT

from align_keras.data import records
from align_keras.errors import InputError
from align_keras.preprocessing.tokenizer import write_vocabulary


def settings_of(data, directory, **others):
    others = {"image_size": 16, "resize_size": 20, "batch_size": 16, "seconds": 0.2, **others}
    return inspect_data.InspectSettings(data=data, output=str(directory / "found"), **others)


def test_good_shards_are_summed_up(scene_shards, pieces, tmp_path, capsys):
    write_vocabulary(pieces, str(tmp_path / "vocab.txt"))
    settings = settings_of(
        ",".join(scene_shards[0]), tmp_path, vocabulary=str(tmp_path / "vocab.txt"), samples=8
    )
    inspect_data.main(settings)
    printed = capsys.readouterr().out
    assert printed.startswith("120 records in 12 shards (all), 120 usable\n")
    report = json.loads((tmp_path / "found" / "report.json").read_text())
    assert report["errors"] == []
    assert report["images_per_second"] > 0
    assert report["captions"]["word_pieces"]["median"] >= 2
    assert (tmp_path / "found" / "samples.png").stat().st_size > 10_000


def test_spoilt_shards_give_lines_and_no_throughput(scene_shards, tmp_path, capsys):
    frames = list(records.read_frames(scene_shards[0][0]))
    path = str(tmp_path / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for frame in [*frames, records.make_record(b"no image", "a b c", "k")]:
            writer.write(frame)
    settings = settings_of(path, tmp_path)
    with pytest.raises(SystemExit) as stopped:
        inspect_data.main(settings)
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "error: 1 of 11 records (9.09%) are unusable, more than 1.00%" in printed
    assert "images_per_second" not in json.loads((tmp_path / "found" / "report.json").read_text())
    inspect_data.main(dataclasses.replace(settings, max_unusable=0.1, seconds=0.0))
    assert "warning: 1 of 11 records (9.09%) are unusable; a run skips" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["max_records", "samples", "batch_size", "max_unusable"])
def test_impossible_settings_are_named(name, tmp_path):
    settings = settings_of("x", tmp_path, **{name: -1})
    with pytest.raises(InputError, match="must be") as caught:
        inspect_data.main(settings)
    assert caught.value.setting == name


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("none-*", "inspect_data.py: --data: no file matches 'none-*'; give a quoted pattern"),
        ("empty.tfrecord", 1),
        ("good.tfrecord", None),
    ],
)
def test_its_exit_code_tells_whether_a_run_may_start(
    data, code, scene_shards, monkeypatch, tmp_path
):
    (tmp_path / "empty.tfrecord").touch()
    shutil.copy(scene_shards[0][0], tmp_path / "good.tfrecord")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["inspect_data.py", f"--data={data}", "--seconds=0"])
    stopped = None
    try:
        runpy.run_path(str(ROOT / "recipes" / "inspect_data.py"), run_name="__main__")
    except SystemExit as error:
        stopped = error.code
    assert stopped.startswith(code) if isinstance(code, str) else stopped == code
