import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from align_keras.data import inspection, inspection_numbers, inspection_summary, records
from align_keras.data.preparation import filters
from align_keras.data.shard_writer import ShardWriter


def picture(color, size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG")
    return buffer.getvalue()


RED, BLUE = picture("red"), picture("blue", (100, 20))


def make_pair(jpg, caption, **fields):
    return records.make_record(jpg, caption, "k", **fields)


def write_shard(path, serialized):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return str(path)


def inspect(*shards, limit=1_000, **options):
    found = inspection.Inspection(**options)
    for shard in shards:
        found.read_shard(shard, limit)
    return found


def judge(report, max_unusable=0.01):
    return inspection_summary.problems(report, max_unusable, resize_size=20, sequence_length=6)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (None, "corrupt record"),
        (b"\xff\xff\xffnonsense", "corrupt record"),
        (make_pair(RED, "Café".encode("latin-1")), "not a pair"),
        (make_pair(0.5, "a"), "not a pair"),
        (make_pair(RED, 3), "not a pair"),
        (make_pair(RED, " \n\u3000"), "empty caption"),
        (make_pair(b"no image", "a"), "image does not decode"),
        (make_pair(RED[:200], "a"), "image does not decode"),
    ],
)
def test_what_a_run_cannot_use_is_named(record, fault):
    found = inspection.examine("x", 3, record)
    assert (found["shard"], found["index"], found["fault"]) == ("x", 3, fault)


def test_an_image_of_too_many_pixels_is_named_undecoded():
    # Its header names 30,000 x 30,000 pixels.
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    png = buffer.getvalue()
    png = png[:16] + (30_000).to_bytes(4, "big") * 2 + png[24:]
    found = inspection.examine("x", 0, make_pair(png, "a"))
    assert found["fault"] == "image has too many pixels"


def test_images_on_their_side_are_counted_and_measured_upright(tmp_path):
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 8
    Image.new("RGB", (40, 30), "red").save(buffer, "JPEG", exif=exif)
    pairs = [make_pair(buffer.getvalue(), "a"), make_pair(RED, "b")]
    found = inspect(write_shard(tmp_path / "0.tfrecord", pairs))
    report = found.report()
    assert report["turned_upright"] == 1
    assert report["images"]["width"]["min"] == 30
    assert "EXIF turns 1 image upright" in inspection_summary.format_summary(report)


def test_a_pair_is_measured():
    found = inspection.examine("x", 0, make_pair(BLUE, " Three  old Dogs", image_id=7))
    assert (found["width"], found["height"], found["bytes"]) == (100, 20, len(BLUE))
    assert (found["unigrams"], found["characters"]) == (3, 16)
    other = inspection.examine("y", 1, make_pair(BLUE, "three  old dogs ", image_id="7"))
    for kind in inspection.REPEATABLE:
        assert found[kind] == other[kind] > 0
    other = inspection.examine("y", 1, make_pair(RED, "a"))
    assert other["image_id"] == 0
    assert other["image"] != found["image"]


def test_unigrams_are_those_that_the_rules_count(tmp_path):
    captions = ["a - dog!", "IMG | & 3", "one two three"]
    shard = write_shard(tmp_path / "a", [make_pair(RED, caption) for caption in captions])
    report = inspect(shard).report()
    counts = [len(filters.unigrams(caption)) for caption in captions]
    assert counts == [2, 2, 3]
    assert report["captions"]["unigrams"]["mean"] == pytest.approx(sum(counts) / 3)
    dropped = [
        filters.broken_text_rule(len(filters.unigrams(caption)), filters.Counts(), filters.Rules())
        for caption in captions
    ]
    assert report["shares"]["fewer than 3 unigrams"] == dropped.count("few_words") / 3 > 0


def test_repeats_of_a_hand_made_column():
    hashes = np.array([5, 0, 9, 5, 9, 9, 0, 3], "u8")
    found = inspection_numbers.repeats_of(hashes)
    assert found == {"records": 3, "most": 3, "over_10": 0, "row": 2}
    assert inspection_numbers.repeats_of(np.full(11, 4, "u8"))["over_10"] == 11
    assert inspection_numbers.repeats_of(np.array([1, 2], "u8"))["row"] is None
    assert inspection_numbers.repeats_of(np.zeros(3, "u8"))["records"] == 0


def test_repeats_are_counted_over_all_shards(tmp_path):
    one = write_shard(
        tmp_path / "a", [make_pair(RED, "a red wall", image_id=1), make_pair(BLUE, "sea")]
    )
    two = write_shard(
        tmp_path / "b",
        [
            make_pair(RED, "A red wall", image_id=1),
            make_pair(RED, "another", image_id=1),
            make_pair(BLUE, "water"),
            make_pair(RED, "a third", image_id=2),
        ],
    )
    repeats = inspect(one, two).report()["repeats"]
    assert {kind: repeats[kind]["records"] for kind in inspection.REPEATABLE} == {
        "pair": 1,
        "image": 4,
        "caption": 1,
        "image_id": 2,
    }
    assert repeats["image"]["example"] == f"{one}: record 0"
    assert repeats["image"]["caption"] == "a red wall"
    assert repeats["image_ids_missing"] == 2
    # BLUE occurs twice without an id; RED occurs under the ids 1 and 2.
    assert repeats["images_under_several_ids"] == 2


def test_the_report_of_good_shards_is_plain_and_serves_as_json(tmp_path):
    pairs = [make_pair(RED, f"one two {'x ' * index}", image_id=index) for index in range(5)]
    shard = write_shard(tmp_path / "a", pairs)
    found = inspect(shard, count_word_pieces=lambda captions: [len(c) for c in captions])
    report = json.loads(json.dumps(found.report()))
    assert (report["records"], report["usable"], report["complete"]) == (5, 5, True)
    assert report["captions"]["unigrams"] == {
        **{"min": 2, "p5": 2.2, "median": 4, "p95": 5.8, "max": 6, "mean": 4}
    }
    assert report["captions"]["word_pieces"]["max"] == len("one two x x x x ")
    assert report["shares"]["fewer than 3 unigrams"] == pytest.approx(0.2)
    assert found.counts == {shard: 5}
    errors, notes = judge(report)
    assert errors == []
    assert "the paper's filter would drop 20.0%: fewer than 3 unigrams" in notes
    assert any("at least one caption in twenty is trimmed" in note for note in notes)
    text = inspection_summary.format_summary(
        report
        | {
            "images_per_second": 1234.5,
            "training_input": {"image_size": 64, "resize_size": 72, "batch_size": 1_000},
        }
    )
    assert text.startswith("5 records in 1 shard (all), 5 usable\n")
    assert "no faults" in text
    assert "1,234 images/s" in text


def test_a_share_of_each_shard_is_read(tmp_path):
    shards = [write_shard(tmp_path / name, [make_pair(RED, "a b c")] * 9) for name in "ab"]
    report = inspect(*shards, limit=4).report()
    assert (report["records"], report["usable"], report["complete"]) == (8, 8, False)


def test_few_faults_are_warned_of_and_many_are_an_error(tmp_path):
    good = [make_pair(RED, f"caption number {index}") for index in range(19)]
    shard = write_shard(tmp_path / "a", [*good, make_pair(b"no image", "a")])
    report = inspect(shard).report()
    assert report["faults"]["image does not decode"]["examples"] == [f"{shard}: record 19: 8 bytes"]
    line = "1 of 20 records (5.00%) are unusable"
    assert f"{line}; training skips them" in judge(report, 0.06)[1]
    assert judge(report, 0.04)[0] == [f"{line}, more than 4.00%; write the shards again"]


def test_records_of_a_cut_shard_are_counted_as_corrupt(tmp_path):
    with ShardWriter(str(tmp_path / "t"), shard_size=10) as writer:
        for index in range(10):
            writer.write(make_pair(RED, f"caption {index}"))
    (path,) = writer.shards
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2 - 9])
    report = inspect(path).report()
    assert (report["records"], report["usable"]) == (10, 4)
    assert report["faults"]["corrupt record"]["count"] == 6
    assert "ends early, 5 records lost" in report["faults"]["corrupt record"]["examples"][1]


def test_what_no_run_starts_with_is_an_error(tmp_path):
    empty = write_shard(tmp_path / "empty", [])
    latin = make_pair(RED, "Café".encode("latin-1"))
    odd = write_shard(tmp_path / "odd", [make_pair(RED, "a b c"), latin, b"\xff\xff\xff"])
    errors, _ = judge(inspect(empty, odd).report(), 1.0)
    assert f"{empty}: no readable record in the shard" in errors
    assert any("odd: record 1: the caption (txt) is not UTF-8" in line for line in errors)
    # A run skips it, like any damaged record.
    assert not any("odd: record 2" in line for line in errors)
    assert inspect(empty).report()["images"]["width"] is None


def test_samples_follow_from_the_seed(tmp_path):
    pairs = [make_pair(RED, f"caption {index}") for index in range(50)]
    shard = write_shard(tmp_path / "a", pairs)
    chosen = [
        [pair["index"] for pair in inspect(shard, num_samples=10, seed=seed).samples]
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 10
    assert len(inspect(shard, num_samples=90).samples) == 50


def test_the_sheet_shows_images_whole_and_any_caption(tmp_path):
    samples = [
        inspection.examine("x", 0, make_pair(jpg, caption))
        for jpg, caption in ((RED, "$5 and 10 % of 漢字"), (BLUE, "long " * 60))
    ]
    inspection_summary.draw_sheet(tmp_path / "s.png", samples, columns=3)
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
    for color in ((254, 0, 0), (0, 0, 254)):
        assert (np.abs(pixels - color).max(axis=-1) < 6).sum() > 1_000
