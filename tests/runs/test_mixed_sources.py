"""The sources of a run's training data, read from the setting ``train_data``."""

import pytest

from align_keras.errors import InputError, MissingInputError
from align_keras.runs import mixed_sources


def write(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")


def test_sources_are_found_and_printed_with_their_shares(tmp_path, capsys):
    write(tmp_path, "a-0.tfrecord", "a-1.tfrecord", "b-0.tfrecord")
    text = f"{tmp_path}/a-*=20,{tmp_path}/b-*=10"
    shards = mixed_sources.find_shards(text)
    counts = dict(zip(shards, [6, 4, 10], strict=True))
    opened = mixed_sources.opened(text, counts)
    first, second = opened.mixed
    assert (first.shards, first.weight) == (shards[:2], 2)
    assert (second.shards, second.weight) == (shards[2:], 1)
    assert f"{tmp_path}/a-*: 10 pairs, weight 20, 66.7%\n" in capsys.readouterr().out
    assert opened.names == [f"{tmp_path}/a-*", f"{tmp_path}/b-*"]
    assert opened.pairs == [10, 10]
    only = mixed_sources.opened(f"{tmp_path}/a-*", {shards[0]: 6, shards[1]: 4})
    assert (only.names, only.pairs, only.mixed) == ([f"{tmp_path}/a-*"], [10], [])


def test_a_source_that_matches_nothing_and_a_wrong_weight_are_refused(tmp_path):
    write(tmp_path, "a-0.tfrecord")
    with pytest.raises(MissingInputError, match="no file matches '.*/none-"):
        mixed_sources.find_shards(f"{tmp_path}/a-*=2,{tmp_path}/none-*=1")
    with pytest.raises(InputError, match="is not a number above 0"):
        mixed_sources.opened(f"{tmp_path}/a-*=0", {})
