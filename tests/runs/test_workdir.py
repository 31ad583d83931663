import contextlib
import json

import pytest

from align_keras import leases
from align_keras.data.shard_order import ShardCounts
from align_keras.errors import InputError
from align_keras.runs.classification_data import difference as difference_of_images
from align_keras.runs.pretraining_data import keep_vocabulary, open_vocabulary
from align_keras.runs.pretraining_parts import DataSettings
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.shard_lists import check_order, difference_of_shards, list_shards
from align_keras.runs.workdir import check_training_data, how_to_resume, open_workdir

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]


def test_a_run_goes_on_with_the_same_shards_alone(tmp_path):
    path = tmp_path / "train_shards.json"

    def check(counts):
        check_training_data(path, list_shards(counts), difference_of_shards)

    check_order(path)  # there is no run yet
    check({"d/a.tfrecord": 10, "d/b.tfrecord": 20})
    check_order(path)
    check({"moved/b.tfrecord": 20, "moved/a.tfrecord": 10})
    for counts, difference in (
        ({"d/a.tfrecord": 10}, "b.tfrecord is gone"),
        ({"d/a.tfrecord": 10, "d/b.tfrecord": 20, "d/c.tfrecord": 5}, "c.tfrecord is new"),
        ({"d/a.tfrecord": 9, "d/b.tfrecord": 20}, "a.tfrecord holds 9 records, not 10,"),
        ({"2/a.tfrecord": 10, "1/b.tfrecord": 20}, "the shards are in another order"),
    ):
        with pytest.raises(InputError, match=f"{difference} since the run in") as raised:
            check(counts)
        assert raised.value.setting == "train_data"
        assert "\n" not in str(raised.value)


def test_a_run_goes_on_only_where_shards_are_read_in_the_same_blocks(tmp_path):
    """Statistics of another program state the number of records, but not the blocks."""
    path = tmp_path / "train_shards.json"
    for starts in ([0, 5_000], [0]):
        counts = ShardCounts(())
        counts["d/a.tfrecord"] = 200
        counts.starts["d/a.tfrecord"] = starts
        if starts == [0]:
            with pytest.raises(InputError, match="a.tfrecord is read in 1 blocks, not 2, since"):
                check_training_data(path, list_shards(counts), difference_of_shards)
        else:
            check_training_data(path, list_shards(counts), difference_of_shards)


def test_a_shard_with_other_records_of_the_same_number_is_named(tmp_path):
    path, counts = tmp_path / "train_shards.json", ShardCounts(())
    counts |= {"d/a.tfrecord": 10, "d/b.tfrecord": 20}
    # The run is from a version that recorded no digests.
    path.write_text('{"order": 2, "shards": [["a.tfrecord", 10, 1], ["b.tfrecord", 20, 1]]}')
    for digest in ("", "0a"):
        counts.digests["d/b.tfrecord"] = digest
        check_training_data(path, list_shards(counts), difference_of_shards)
    path.unlink()
    check_training_data(path, list_shards(counts), difference_of_shards)
    counts.digests["d/b.tfrecord"] = "0b"
    with pytest.raises(InputError, match="b.tfrecord holds other records since the run"):
        check_training_data(path, list_shards(counts), difference_of_shards)


@pytest.mark.parametrize("before", ['[["a.tfrecord", 10]]', '{"order": 1, "shards": []}'])
def test_a_run_that_began_in_another_order_is_refused(before, tmp_path):
    """In a run of an earlier version, the file contains only the list of shards."""
    path = tmp_path / "train_shards.json"
    path.write_text(before)
    with pytest.raises(InputError, match="reads records in another order; continue with") as raised:
        check_order(path)
    assert raised.value.setting == "workdir"
    assert "\n" not in str(raised.value)
    assert path.read_text() == before


def test_a_workdir_that_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="/file is a file; give a directory") as raised:
            open_workdir(PretrainSettings(), str(workdir), written=())
        assert raised.value.setting == "workdir"


def test_a_directory_is_opened_by_the_run_that_is_in_it_alone(tmp_path):
    settings = PretrainSettings()
    assert open_workdir(settings, str(tmp_path / "new"), written=("preset",)) == tmp_path / "new"
    part = open_workdir(settings, str(tmp_path), "worker-1", written=("preset",))
    assert part == tmp_path / "worker-1"
    assert not part.exists()
    (tmp_path / "settings.json").write_text(settings.as_json())
    assert (
        open_workdir(settings.replace(log_every=5), str(tmp_path), written=("preset",)) == tmp_path
    )
    with pytest.raises(InputError, match="began with 0, not 1") as raised:
        open_workdir(settings.replace(seed=1), str(tmp_path), written=("preset",))
    assert raised.value.setting == "seed"
    assert open_workdir(settings, "", written=("preset",)).parts[0] == "runs"


def test_a_directory_with_what_a_run_writes_is_a_runs_or_refused(tmp_path):
    settings = PretrainSettings()
    (tmp_path / "preset").mkdir()
    open_workdir(settings, str(tmp_path), written=("preset",))  # an empty folder is accepted
    (tmp_path / "preset" / "config.json").touch()
    with pytest.raises(InputError, match="has no settings.json of a run; restore it") as raised:
        open_workdir(settings, str(tmp_path), written=("log.jsonl", "preset"))
    assert raised.value.setting == "workdir"
    assert raised.value.place.file == str(tmp_path / "preset")
    (tmp_path / "settings.json").write_text(settings.as_json())
    assert open_workdir(settings, str(tmp_path), written=("preset",)) == tmp_path


@pytest.mark.parametrize(
    "text", ["", "{}", '{"steps": {}}', '{"of": "another"}', "[" * 9_999, "\0"]
)
def test_damaged_settings_are_named(text, tmp_path):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(InputError, match="settings.json: damaged; restore it, or give") as raised:
        open_workdir(PretrainSettings(), str(tmp_path), written=())
    assert raised.value.place.file == str(tmp_path / "settings.json")


RECORDS = [
    (list_shards({"d/a.tfrecord": 10}), difference_of_shards, "shards", (None, 3, [3], [[]])),
    ({"images": 3, "classes": ["a", "b"]}, difference_of_images, "images", (None, "text", [3])),
]


@pytest.mark.parametrize(("found", "describe", "field", "values"), RECORDS)
def test_damaged_records_of_the_training_data_are_named(found, describe, field, values, tmp_path):
    path = tmp_path / "train.json"
    for value in values:
        path.write_text(json.dumps({**found, field: value}))
        with pytest.raises(InputError, match=r"train.json: damaged; restore it, or give"):
            check_training_data(path, found, describe)
    path.unlink()
    (tmp_path / "settings.json").touch()
    with pytest.raises(InputError, match=r"train.json: missing, although there is a run; restore"):
        check_training_data(path, found, describe)
    assert not path.exists()


def test_one_process_at_a_time_uses_a_directory(tmp_path):
    settings, workdir = PretrainSettings(), tmp_path / "run"
    with contextlib.ExitStack() as held:
        open_workdir(settings, str(workdir), written=(), held=held)
        with pytest.raises(
            InputError, match="another run is using it; wait for .*, process "
        ) as raised:
            open_workdir(settings, str(workdir), written=())
        assert (raised.value.setting, raised.value.place.file) == ("workdir", str(workdir))
        # Each worker has its own subfolder.
        open_workdir(settings, str(workdir), "worker-1", written=(), held=held)
    # The directory is removed, since it is new and empty.
    assert not workdir.exists()


def test_a_signal_says_truly_how_to_go_on(tmp_path):
    nothing = "there is no checkpoint yet, so the same command starts from the beginning"
    assert how_to_resume("runs/a", tmp_path, ("head", "full")) == nothing
    folder = tmp_path / "head" / "checkpoints" / "newest"
    folder.mkdir(parents=True)
    for name in ("ckpt-9.index", "ckpt-10.index", "ckpt-11.index.damaged", "ckpt-12_temp"):
        (folder / name).touch()
    assert how_to_resume("runs/a", tmp_path, ("head", "full")) == (
        "the same command with <workdir>=runs/a resumes at step 10 of head"
    )


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("https://bucket/run", "https:// is not supported here"),
        ("ram://runs/[a]", "TensorFlow reads .* as a pattern"),
    ],
)
def test_an_address_where_no_run_can_be_is_refused(address, problem):
    with pytest.raises(InputError, match=problem) as raised:
        open_workdir(PretrainSettings(), address, written=())
    assert raised.value.setting == "workdir"


def test_a_directory_on_another_machine_is_one_runs(monkeypatch):
    monkeypatch.setattr(leases, "LEFT_AFTER", 0.2)
    monkeypatch.setattr(leases, "RENEWED_EVERY", 0.01)
    address = "ram://runs/a"
    with contextlib.ExitStack() as held:
        found = open_workdir(PretrainSettings(), address, "worker-1", written=(), held=held)
        assert str(found) == f"{address}/worker-1"
        with pytest.raises(InputError, match="another run is using it; wait for ") as raised:
            open_workdir(PretrainSettings(), address, "worker-1", written=())
        assert raised.value.setting == "workdir"
        (found / "checkpoints/newest").mkdir(parents=True)
        (found / "checkpoints/newest/ckpt-12.index").touch()
        assert "resumes at step 12" in how_to_resume(address, found)
    assert [path.name for path in found.iterdir()] == ["checkpoints"]
    with pytest.raises(InputError, match="already exists, and .* has no settings.json"):
        open_workdir(PretrainSettings(), str(found), written=["checkpoints"])


def test_another_vocabulary_is_not_written_over(tmp_path):
    keep_vocabulary(PIECES, tmp_path)
    keep_vocabulary(PIECES, tmp_path)  # as after a run that was killed early
    with pytest.raises(InputError, match="already exists, with other word pieces") as raised:
        keep_vocabulary([*PIECES, "b"], tmp_path)
    assert raised.value.setting == "workdir"
    assert (tmp_path / "vocab.txt").read_text().split() == PIECES


CHANGED = "\n".join([*PIECES[:-1], "b\n"])


@pytest.mark.parametrize("content", [None, "", "[PAD]\n", "\ud800", CHANGED])
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_damaged_vocabulary_of_a_run_is_named(content, is_listed, tmp_path):
    keep_vocabulary(PIECES, tmp_path)
    (tmp_path / "settings.json").touch()
    path, sums = tmp_path / "vocab.txt", tmp_path / "checksums.json"
    assert open_vocabulary(DataSettings(), tmp_path, []) == PIECES
    if not is_listed:
        sums.unlink()
    if content is None:
        path.unlink()
    else:
        path.write_text(content, errors="surrogatepass")
    # Without checksums, as in runs of earlier versions, other word pieces are noticed only by
    # comparison with those of the settings.
    reads = [lambda: keep_vocabulary(PIECES, tmp_path)]
    if is_listed or content != CHANGED:
        reads.append(lambda: open_vocabulary(DataSettings(), tmp_path, []))
    for read in reads:
        with pytest.raises(InputError, match="restore it, or give another workdir") as raised:
            read()
        assert raised.value.place.file == str(path)
    assert path.exists() == (content is not None)


def test_a_run_of_an_earlier_version_gets_its_checksums(tmp_path):
    keep_vocabulary(PIECES, tmp_path)
    (tmp_path / "settings.json").touch()
    before = (tmp_path / "checksums.json").read_text()
    (tmp_path / "checksums.json").unlink()
    keep_vocabulary(PIECES, tmp_path)
    assert (tmp_path / "checksums.json").read_text() == before
