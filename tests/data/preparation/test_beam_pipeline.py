"""Beam's shards, list and report equal those of one machine."""

import json

import pytest
from planted import COLUMNS, Planted

from align_keras.data import records
from align_keras.data.preparation import preparing
from align_keras.data.shard_writer import ShardWriter

pytest.importorskip("apache_beam", reason="needs align-keras[beam]: make test-data")
# Ignores warnings of Beam and its dependencies.
pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Planted pairs as shards of this package, which are several parts of one source."""
    folder = tmp_path_factory.mktemp("beam")
    planted = Planted(folder / "pairs")
    with ShardWriter(str(folder / "raw"), 600) as writer:
        for number, row in enumerate(planted.rows):
            path = planted.folder / (row["image"] or "none")
            image = path.read_bytes() if path.exists() else b""
            others = {"rating": str(row["rating"])} if "rating" in row else {}
            for caption in row["captions"]:
                key = f"{number:05d}"
                writer.write(records.make_record(image, caption, key, image_id=key, **others))
    return planted, f"{folder}/raw-*.tfrecord"


@pytest.mark.parametrize("most", [None, 60])
def test_both_engines_write_the_same_bytes(shards, tmp_path, most):
    planted, source = shards
    for engine in ("single_machine", "beam"):
        planted.prepare(
            tmp_path / engine / "train",
            preparing.open_pairs(source=source, columns=COLUMNS),
            planted.rules.but(frequent_ngrams=most),
            engine=engine,
            shard_size=150,
        )
    one, beam = tmp_path / "single_machine", tmp_path / "beam"
    names = sorted(path.name for path in one.iterdir())
    assert sorted(path.name for path in beam.iterdir()) == names
    for name in names:
        if name == "train-left_out.jsonl":
            lines = [sorted((place / name).read_text().splitlines()) for place in (one, beam)]
            assert lines[0] == lines[1]
        else:
            assert (one / name).read_bytes() == (beam / name).read_bytes()
    report = json.loads((one / "train-report.json").read_text())
    dropped = {rule["rule"]: rule["pairs"] for rule in report["rules"]}
    if most is None:
        assert len(names) > 10 and all(dropped.values())
    assert dropped["rare_words"]


def test_a_table_is_filtered_by_beam(tmp_path):
    planted = Planted(tmp_path / "pairs")
    planted.prepare(tmp_path / "one", table_only=True, images=False)
    planted.prepare(tmp_path / "beam", table_only=True, images=False, engine="beam")
    lines = sorted((tmp_path / "one-kept.jsonl").read_text().splitlines())
    parts = sorted(tmp_path.glob("beam-kept*.jsonl"))
    assert sorted(line for part in parts for line in part.read_text().splitlines()) == lines
