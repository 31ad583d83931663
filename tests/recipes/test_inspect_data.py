import json
import shutil

import pytest
import tensorflow as tf
from in_process import run_recipe_here

from align_keras.data import records
from align_keras.preprocessing.tokenizer import write_vocabulary


def inspect(data, directory, *flags):
    """Runs the command for a small model; returns its exit code."""
    sizes = ("--image-size=16", "--resize-size=20", "--batch-size=16", "--seconds=0.2")
    places = (f"--data={data}", f"--output={directory / 'found'}")
    return run_recipe_here("inspect_data.py", *places, *sizes, *flags)


def report_in(directory):
    return json.loads((directory / "found" / "report.json").read_text())


def test_good_shards_are_summed_up(scene_shards, pieces, tmp_path, capsys):
    vocabulary = tmp_path / "vocab.txt"
    write_vocabulary(pieces, str(vocabulary))
    flags = (f"--vocabulary={vocabulary}", "--samples=8")
    assert inspect(",".join(scene_shards[0]), tmp_path, *flags) is None
    printed = capsys.readouterr().out
    assert printed.startswith("120 records in 12 shards (all), 120 usable\n")
    written, *_, train = printed[printed.index("written: ") :].splitlines()
    assert written == f"written: {tmp_path}/found/ (report.json, samples.png)"
    assert f"pretrain.py --train-data={','.join(scene_shards[0])}" in train
    assert "images/s, images of 16 pixels, resized to 20, 16 per batch" in printed
    sizes = "--image-size=16 --resize-size=20 --sequence-length=64 --batch-size=16"
    assert f"measured with {sizes}; give the sizes of your own run" in printed
    report = report_in(tmp_path)
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
    assert inspect(path, tmp_path) == 1
    printed = capsys.readouterr().out
    assert "error: 1 of 11 records (9.09%) are unusable, more than 1.00%" in printed
    assert "images_per_second" not in report_in(tmp_path)
    assert inspect(path, tmp_path, "--max-unusable=0.1", "--seconds=0") is None
    assert (
        "warning: 1 of 11 records (9.09%) are unusable; training skips" in capsys.readouterr().out
    )


@pytest.mark.parametrize("flag", ["--max-records", "--samples", "--batch-size", "--max-unusable"])
def test_impossible_settings_are_named(flag, tmp_path):
    line = inspect("x", tmp_path, f"{flag}=-1")
    assert line.startswith(f"inspect_data.py: {flag}: must be ")
    assert "\n" not in line


def test_a_missing_vocabulary_is_named(scene_shards, tmp_path):
    line = inspect(scene_shards[0][0], tmp_path, "--vocabulary=none.txt")
    assert line.startswith("inspect_data.py: --vocabulary: none.txt: no such file")


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
    ended = run_recipe_here("inspect_data.py", f"--data={data}", "--seconds=0")
    assert ended.startswith(code) if isinstance(code, str) else ended == code
