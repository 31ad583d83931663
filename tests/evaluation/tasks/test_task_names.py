import json

import pytest

from align_keras.errors import InputError
from align_keras.evaluation.tasks.evaluate import TASKS, check_output, make_task
from align_keras.evaluation.tasks.retrieval import Retrieval


def test_a_task_takes_the_settings_that_it_has():
    settings = {"data": "photos", "batch_size": 8, "fold_size": 5, "seed": 3, "output": "x"}
    task = make_task("retrieval:photos", settings)
    assert (task.kind, task.name, task.data, task.fold_size) == ("retrieval", "photos", "photos", 5)
    assert not hasattr(task, "seed")
    assert make_task("linear_probe:photos", settings).seed == 3


@pytest.mark.parametrize("kind", ["crisscrossed", "multi30k"])
def test_a_kind_may_name_its_data_set(kind):
    assert make_task(kind, {}).name == kind


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("retrieve:coco", r"unknown task 'retrieve'; did you mean retrieval\? choose one of"),
        ("zero_shot", "zero_shot needs the name of a data set"),
        ("knn:../coco", "knn needs the name of a data set"),
    ],
)
def test_what_is_no_task_is_reported(task, message):
    with pytest.raises(InputError, match=message):
        make_task(task, {})


@pytest.mark.parametrize("kind", ["retrieval", "zero_shot", "knn", "linear_probe"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("flickr30k", "TFDS does not have it"), ("mine", "it is not a known name")],
)
def test_data_must_be_given_for_sets_that_tfds_lacks(kind, name, message):
    with pytest.raises(InputError, match=f"give the data of {name}; {message}") as caught:
        TASKS[kind](name).open()
    assert caught.value.setting == "data"


def test_a_result_of_another_model_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = Retrieval("photos", "test.jsonl")
    check_output(task, tmp_path, "runs/a")
    path = tmp_path / "retrieval-photos.json"
    path.write_text(json.dumps({"pretrained": "runs/a"}))
    for same in ("runs/a", "runs/a/", str(tmp_path / "runs" / "a"), ""):
        check_output(task, tmp_path, same)
    check_output(Retrieval("others", "test.jsonl"), tmp_path, "runs/b")
    for other in ("runs/b", "hf://runs/a"):
        with pytest.raises(
            InputError, match="another model, runs/a; give another folder"
        ) as caught:
            check_output(task, tmp_path, other)
        assert caught.value.setting == "output"
        assert caught.value.place.file == str(path)
    for text in ("", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(InputError, match="does not hold the result of an evaluation"):
            check_output(task, tmp_path, "runs/a")
