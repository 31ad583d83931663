"""Paths of a set: names with pattern characters or quotes, and other sets in its folder."""

import dataclasses
import json

import pytest

from align_keras.data import records, shard_sets
from align_keras.data.examples.opening import open_downloads
from align_keras.data.preparation import filters, preparing
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError


@pytest.fixture
def table(tmp_path, scene_images):
    """Three images and captions in a folder whose name is a pattern with a quote."""
    folder = tmp_path / "it's [v2]"
    folder.mkdir()
    rows = []
    for number, data in enumerate(scene_images):
        (folder / f"{number}.jpg").write_bytes(data)
        rows.append({"image": f"{number}.jpg", "caption": f"a thing number {number}"})
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "t.jsonl"


def prepare(table, output, rules=filters.NO_RULES, **options):
    source = preparing.open_pairs(str(table))
    return preparing.prepare(source, preparing.Output(str(output), **options), rules)


def read(output):
    """Captions by shard."""
    return {
        shard: [records.parse_pair(record)["txt"].decode() for record in records.read_frames(shard)]
        for shard in shard_sets.find_set(output)
    }


def test_a_set_in_a_folder_that_is_a_pattern_is_written_and_guarded(table):
    output = table.parent / "set [1]"
    # DuckDB counts the n-grams for this rule, and its SQL contains the path.
    rules = dataclasses.replace(filters.NO_RULES, frequent_ngrams=1_000)
    prepare(table, output, rules, shard_size=1)
    before = read(output)
    assert sorted(map(tuple, before.values())) == [(f"a thing number {n}",) for n in range(3)]
    assert records.find_shards(f"{output}-*.tfrecord") == sorted(before)
    assert records.find_shards(shard_sets.pattern_of(str(output))) == sorted(before)
    with pytest.raises(InputError, match=r"set \[1\]-00000.tfrecord already exists") as caught:
        prepare(table, output)
    assert caught.value.setting == "output"
    assert read(output) == before


def test_a_folder_of_downloads_may_be_a_pattern(table):
    folder = table.parent
    with ShardWriter(str(folder / "x"), 10) as writer:
        writer.write(records.make_record(b"jpg", "a caption", "0"))
    (example,) = open_downloads(str(folder))
    assert example.captions == ("a caption",)


def test_a_failed_run_leaves_other_sets_and_its_own_name_free(table, tmp_path, monkeypatch):
    prepare(table, tmp_path / "sh" / "cc-12m")
    other = read(tmp_path / "sh" / "cc-12m")
    assert other

    def broken(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "_finish_shard", broken)
        with pytest.raises(OSError, match="no space left"):
            prepare(table, tmp_path / "sh" / "cc")
    assert read(tmp_path / "sh" / "cc-12m") == other
    prepare(table, tmp_path / "sh" / "cc")
    assert read(tmp_path / "sh" / "cc-12m") == other
    assert len(read(tmp_path / "sh" / "cc")) == 1


def test_a_list_that_is_there_is_not_written_over(table, tmp_path):
    prepare(table, tmp_path / "list", table_only=True)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("list-*")}
    assert "list-kept.jsonl" in before
    for table_only in (True, False):
        with pytest.raises(InputError, match="list-kept.jsonl already exists"):
            prepare(table, tmp_path / "list", table_only=table_only)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("list-*")} == before


def test_what_a_run_that_packed_nothing_left_is_no_obstacle(table, tmp_path):
    rules = dataclasses.replace(filters.NO_RULES, min_words=10)
    assert not prepare(table, tmp_path / "train", rules)["pairs_out"]
    assert (tmp_path / "train-left_out.jsonl").exists()
    prepare(table, tmp_path / "train")
    names = sorted(path.name for path in tmp_path.glob("train*"))
    ends = ["00000.tfrecord", "00000_stats.json", "checksums.json", "report.html", "report.json"]
    assert names == [f"train-{end}" for end in ends]
