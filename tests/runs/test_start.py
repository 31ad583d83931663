"""``start.json``, which keeps the figures of a run's starting model."""

import json

import pytest

from align_keras.errors import InputError
from align_keras.evaluation.metrics import ACCURACIES, RECALLS
from align_keras.runs import start

METRICS = {**dict.fromkeys(RECALLS, 0.5), **dict.fromkeys(ACCURACIES)}
DATA = {"eval_data": "d", "prompts": ["{}"]}


def test_figures_are_read_back_for_the_same_data_alone(tmp_path, capsys):
    assert start.read(tmp_path, DATA) == {}
    start.write(tmp_path, DATA, METRICS)
    assert start.read(tmp_path, DATA) == METRICS
    assert start.read(tmp_path, {**DATA, "eval_data": "other"}) == {}
    line = f"{tmp_path}/start.json has no figures of the starting model on these held-out data\n"
    assert capsys.readouterr().out == 2 * line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        json.dumps({"held_out": DATA}),
        json.dumps({"held_out": DATA, "metrics": 3}),
        json.dumps({"held_out": DATA, "metrics": {**METRICS, RECALLS[0]: "high"}}),
        json.dumps({"held_out": DATA, "metrics": {RECALLS[0]: 0.5}}),
    ],
)
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "start.json").write_text(text)
    with pytest.raises(
        InputError, match=r"start.json: damaged; restore it, or remove it to continue without"
    ):
        start.read(tmp_path, DATA)
