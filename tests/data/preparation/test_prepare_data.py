"""The whole preparation, on pairs that each have one known fault."""

import collections
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, SHARED
from planted import COLUMNS, Planted

from align_keras.data import records
from align_keras.data.examples.columns import Columns
from align_keras.data.preparation import filters, preparing, single_machine
from align_keras.errors import InputError


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return Planted(tmp_path_factory.mktemp("planted") / "pairs")


def read_pairs(output):
    shards = records.find_shards(f"{output}-*.tfrecord")
    return [records.parse_pair(frame) for shard in shards for frame in records.read_frames(shard)]


def left_out(output):
    with open(f"{output}-left_out.jsonl") as file:
        return collections.Counter((pair["where"], pair["rule"]) for pair in map(json.loads, file))


def check_planted(planted, output):
    expected = collections.Counter()
    kept = []
    for number, (row, rule) in enumerate(zip(planted.rows, planted.expected, strict=True), 1):
        if rule:
            expected[f"line {number}", rule] += len(row["captions"])
        else:
            kept += [(row["image"], caption.strip()) for caption in row["captions"]]
    assert left_out(output) == expected
    pairs = [(pair["image_id"].decode(), pair["txt"].decode()) for pair in read_pairs(output)]
    assert sorted(pairs) == sorted(kept)
    return pairs, kept


def test_exactly_the_planted_pairs_are_dropped_each_under_its_rule(planted, tmp_path):
    output = tmp_path / "train"
    assert {rule for rule in planted.expected if rule} == set(filters.RULES)
    planted.prepare(output, shard_size=500)
    pairs, kept = check_planted(planted, output)
    # The pairs are shuffled, and the shards have the requested size.
    assert pairs != kept
    counts = [records.count_records(shard) for shard in records.find_shards(f"{output}-*.tfrecord")]
    assert counts[:-1] == [500] * (len(counts) - 1)
    report = json.loads((tmp_path / "train-report.json").read_text())
    assert report["pairs_in"] == sum(len(row["captions"]) for row in planted.rows)
    assert report["pairs_out"] == len(kept)
    dropped = {rule["rule"]: rule["pairs"] for rule in report["rules"]}
    by_rule = collections.Counter()
    for (_, rule), count in left_out(output).items():
        by_rule[rule] += count
    assert dropped == by_rule
    for rule in report["rules"]:
        assert len(rule["examples"]) == min(12, rule["pairs"])
    assert sum(entry["out"] for entry in report["caption_words"]) == len(kept)
    page = (tmp_path / "train-report.html").read_text()
    assert f"{len(kept):,} of {report['pairs_in']:,} pairs kept" in page
    shown = [example for rule in report["rules"] for example in rule["examples"]]
    shown = [example for example in shown + report["kept_examples"] if example["thumbnail"]]
    twins = sum("matches" in example for example in shown)
    assert page.count("data:image/jpeg;base64,") == len(shown) + twins > 50
    assert "http" not in page


def test_the_order_follows_from_the_seed_alone(planted, tmp_path):
    with open(planted.table) as file:
        (planted.folder / "few.jsonl").write_text("".join(itertools.islice(file, 60)))
    source = preparing.open_pairs(str(planted.folder / "few.jsonl"))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        planted.prepare(tmp_path / name, source, filters.NO_RULES, seed, images=False)
    a, b, c = ([pair["txt"] for pair in read_pairs(tmp_path / name)] for name in "abc")
    assert (tmp_path / "a-00000.tfrecord").read_bytes() == (
        tmp_path / "b-00000.tfrecord"
    ).read_bytes()
    assert a == b != c
    assert sorted(a) == sorted(c)


def test_a_function_may_tell_unsafe_examples_too(planted, tmp_path):
    source = preparing.open_pairs(planted.table)
    output = preparing.Output(str(tmp_path / "train"), table_only=True)
    report = preparing.prepare(source, output, is_unsafe=lambda example: example.key == "line 1")
    (unsafe,) = [rule for rule in report["rules"] if rule["rule"] == "unsafe"]
    assert [pair["where"] for pair in unsafe["examples"]] == ["line 1"]


def test_a_table_is_filtered_without_its_images(planted, tmp_path):
    rows = tmp_path / "urls.jsonl"  # in a folder without images
    with open(planted.table) as file:
        rows.write_text(file.read())
    source = preparing.open_pairs(str(rows), columns=COLUMNS)
    planted.prepare(tmp_path / "list", source, table_only=True, images=False)
    of_images = {"small_image", "elongated_image", "unreadable_image", "near_duplicate", None}
    kept = collections.Counter(
        (row["image"], caption.strip())
        for row, rule in zip(planted.rows, planted.expected, strict=True)
        if rule in of_images
        for caption in row["captions"]
    )
    lines = (tmp_path / "list-kept.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for line in lines]
    assert collections.Counter((pair["url"], pair["caption"]) for pair in pairs) == kept
    assert not list(tmp_path.glob("*.tfrecord"))


def test_a_killed_run_is_done_again_whole(planted, tmp_path):
    output = tmp_path / "out" / "train"
    command = [sys.executable, "-c", _SLOW, planted.table, str(output)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        deadline = time.monotonic() + 60
        while not list(output.parent.glob("train.unfinished/set/train-00001.tfrecord.partial")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(InputError, match="another run is writing") as caught:
            planted.prepare(output)
        assert caught.value.setting == "output"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "out" / "train.unfinished").exists()
    assert [path.name for path in output.parent.iterdir()] == ["train.unfinished"]
    planted.prepare(output)
    check_planted(planted, output)
    assert not list(output.parent.glob("*partial*")) and not list(output.parent.glob("*unfin*"))
    with pytest.raises(InputError, match="train-00000.tfrecord already exists") as caught:
        planted.prepare(output)
    assert caught.value.setting == "output"


# Packs without rules, and sleeps when the second shard has been started.
_SLOW = """
import sys, time
from align_keras import progress
from align_keras.data.examples.table_examples import TableExamples
from align_keras.data.preparation import filters, single_machine
from align_keras.data.preparation.judging import Preparation

def watch(items, what, unit, total=None):
    for index, item in enumerate(items):
        yield item
        if what.startswith("writing") and index > 60:
            time.sleep(60)

table, output = sys.argv[1:]
preparation = Preparation(TableExamples(table), filters.NO_RULES)
progress.watch = watch
single_machine.prepare(preparation, output, 50)
"""


def test_an_error_leaves_nothing_half_written(planted, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(single_machine.ShardWriter, "_finish_shard", broken)
    with pytest.raises(OSError, match="no space left"):
        planted.prepare(tmp_path / "train")
    assert list(tmp_path.iterdir()) == []


def test_the_real_alt_texts_of_the_web_are_judged_sensibly(tmp_path):
    sample = SHARED / "data" / "metadata" / "laion_alt_text_sample.tsv.gz"
    if not sample.exists():
        pytest.skip(f"no shared data at {sample}; planted pairs are judged above")
    import gzip

    table = tmp_path / "laion.tsv"
    table.write_bytes(gzip.decompress(sample.read_bytes()))
    preparing.prepare(
        preparing.open_pairs(str(table), columns=Columns(image="url")),
        preparing.Output(str(tmp_path / "kept"), table_only=True),
        filters.Rules(language="en"),
    )
    report = json.loads((tmp_path / "kept-report.json").read_text())
    dropped = {rule["rule"]: rule["pairs"] for rule in report["rules"]}
    assert report["pairs_in"] == 9_802
    # About one in eleven of the web's alt-texts is too short or too long.
    assert 300 < dropped["few_words"] < 700
    assert 300 < dropped["many_words"] < 700
    # With so few texts, no n-gram is beyond the 100 million most frequent ones, and no alt-text
    # is shared by too many images.
    assert dropped["rare_words"] == dropped["shared_caption"] == 0
    assert 100 < dropped["language"] < 500
