import json
import shutil

import numpy as np
import pytest

from align_keras.errors import InputError
from align_keras.evaluation import features
from align_keras.evaluation.features import EmbedsOnce
from align_keras.evaluation.metrics import json_names, names_of_json
from align_keras.evaluation.tasks import suite
from align_keras.evaluation.tasks.evaluate import make_task
from align_keras.evaluation.tasks.suite_data import SUITES, find_data, make_tasks, tasks_of

NAMES = "retrieval:photos,zero_shot:photos,knn:photos,retrieval:flickr30k"


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def finished(tiny_model, scene_photos, tmp_path_factory):
    """A finished suite: its tasks, the opened data, the folder, and the returned results."""
    folder = tmp_path_factory.mktemp("suite")
    roots = f"photos={scene_photos / 'pairs.jsonl'}"
    tasks = make_tasks(NAMES, roots, {"batch_size": 8, "cache": ""})
    opened = suite.open_tasks(tasks)
    written = suite.run_suite(tiny_model, "tasks", tasks, opened, folder, "a preset")
    return tasks, opened, folder, written


def test_a_suite_gives_the_figures_of_its_tasks_alone(finished, tiny_model, tmp_path):
    tasks, opened, folder, written = finished
    assert [own["name"] for own in written["results"]] == NAMES.split(",")[:3]
    for result in written["results"]:
        own = read_json(folder / result["json"])
        assert own == {name: result[name] for name in own}
    assert read_json(folder / "suite-tasks.json") == written
    alone = tasks["knn:photos"].run(tiny_model, opened.data["knn:photos"], tmp_path)
    found = written["results"][2]
    assert found["metrics"] == pytest.approx(json_names(alone.metrics, "knn"))
    assert found["chance"] == pytest.approx(json_names(alone.chance, "knn"))


def test_tasks_without_data_are_listed_and_stop_nothing(finished, capsys):
    *_, written = finished
    assert written["not_run"] == [{"name": "retrieval:flickr30k", "reason": "no data"}]
    assert "retrieval:flickr30k       not run: no data" in suite.format_suite(written)


def test_a_finished_task_is_not_run_again_until_model_or_data_change(
    finished, tiny_model, tmp_path, monkeypatch
):
    tasks, opened, folder, written = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    run = []
    monkeypatch.setattr(suite, "evaluate", lambda *given: run.append(given[1].kind))
    monkeypatch.setattr(suite.suite_page, "render", lambda *_: "")
    again = suite.run_suite(tiny_model, "tasks", tasks, opened, tmp_path, "a preset")
    assert (run, again) == ([], written)
    # As after a kill between writing outcomes and JSON: they belong to different models.
    np.savez(tmp_path / "knn-photos.npz", fingerprint="0" * 64)
    (tmp_path / "retrieval-photos.png").unlink()
    for name, task in tasks.items():
        found = suite.find_result(
            tmp_path / f"{task.kind}-photos.json",
            next((r["fingerprint"] for r in written["results"] if r["name"] == name), ""),
        )
        assert (found is None) == (task.kind in ("knn", "retrieval") or "flickr" in name), name
    digest = suite.fingerprint_of(tasks["zero_shot:photos"], opened.data["zero_shot:photos"], "m")
    others = [
        suite.fingerprint_of(tasks["zero_shot:photos"], opened.data["zero_shot:photos"], "n"),
        suite.fingerprint_of(tasks["knn:photos"], opened.data["zero_shot:photos"], "m"),
        suite.fingerprint_of(tasks["zero_shot:photos"], opened.data["knn:photos"][1], "m"),
    ]
    assert len({digest, *others}) == 4


def test_other_labels_in_the_table_are_other_data(scene_photos, tmp_path):
    table = tmp_path / "pairs.jsonl"
    shutil.copy(scene_photos / "pairs.jsonl", table)
    task = make_task("zero_shot:photos", {"data": str(table), "images": str(scene_photos)})
    before = suite.fingerprint_of(task, task.open(), "m")
    assert before == suite.fingerprint_of(task, task.open(), "m")
    table.write_text(table.read_text().replace('"ring"', '"rings"'))
    assert before != suite.fingerprint_of(task, task.open(), "m")


def test_an_image_passes_the_tower_once(tiny_model, held_out_images, monkeypatch):
    crops = np.stack(
        [tiny_model.preprocessor.decode_centre_crop(own).numpy() for own in held_out_images[:5]]
    )
    once = EmbedsOnce(tiny_model)
    images = once.encode_images(crops[:4], 4, cropped=True)
    np.testing.assert_allclose(images, tiny_model.encode_images(crops[:4], 4, True), atol=1e-6)
    calls = []
    tower = tiny_model.encode_image_features
    monkeypatch.setattr(
        tiny_model,
        "encode_image_features",
        lambda images, *_, **__: calls.append(len(images)) or tower(images, 4, cropped=True),
    )
    once.encode_image_features(crops[[4, 2, 4]], 4)
    np.testing.assert_array_equal(once.encode_images(crops[:4]), images)
    assert (calls, once.num_embedded) == ([1], 5)


def test_the_features_used_least_recently_are_dropped(tiny_model, held_out_images, monkeypatch):
    crops = np.stack(
        [tiny_model.preprocessor.decode_centre_crop(own).numpy() for own in held_out_images[:5]]
    )
    once = EmbedsOnce(tiny_model)
    expected = once.encode_image_features(crops, 5)
    monkeypatch.setattr(features, "_MOST_BYTES", 3 * expected[0].nbytes)
    once.encode_image_features(crops[[0, 1]], 5)  # keeps these and the newest of the others
    assert once.num_embedded == 5
    np.testing.assert_array_equal(
        once.encode_image_features(crops[[1, 4, 0]], 5), expected[[1, 4, 0]]
    )
    assert once.num_embedded == 5
    np.testing.assert_allclose(once.encode_image_features(crops, 5), expected, rtol=1e-5)
    assert (once.num_embedded, len(once._features)) == (7, 3)


def test_the_page_holds_scores_charts_and_pictures(finished):
    *_, folder, _ = finished
    page = (folder / "suite-tasks.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4
    for text in ("Calibration", "Accuracy by class", "recall by rank", "not run: no data"):
        assert text in page
    assert 'src="http' not in page


def test_data_are_found_in_folders_by_the_name_of_the_set(tmp_path):
    for name in (
        "a/pairs.jsonl",
        "b/labels.csv",
        "c/dataset_c.json",
        "d/0.tfrecord",
        "e/cat/0.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "c/images").mkdir()
    (tmp_path / "crisscrossed/val2014").mkdir(parents=True)
    (tmp_path / "f.csv").touch()
    found = {name: find_data(name, {"g": "x.csv"}, [tmp_path]) for name in "abcdefgh"}
    ends = {"a": "a/pairs.jsonl", "b": "b/labels.csv", "c": "c/dataset_c.json", "d": "d/*.tfrecord"}
    ends |= {"e": "e", "f": "f.csv"}
    assert {name: found[name].get("data") for name in ends} == {
        name: str(tmp_path / end) for name, end in ends.items()
    }
    assert found["c"]["images"] == str(tmp_path / "c/images")
    assert (found["g"], found["h"]) == ({"data": "x.csv"}, {})
    judged = find_data("crisscrossed", {}, [tmp_path])
    assert judged["images"] == str(tmp_path / "crisscrossed/val2014")


def test_wrong_names_are_refused_with_what_there_is(tmp_path):
    for tasks in SUITES.values():
        assert all(make_task(task, {}) for task in tasks)
    with pytest.raises(InputError, match=r"unknown suite or task 'smal'; did you mean small"):
        tasks_of("smal")
    with pytest.raises(InputError, match="flikr of retrieval:flikr is neither a known data set"):
        make_tasks("retrieval:flikr", str(tmp_path), {})
    with pytest.raises(InputError, match="nowhere: no such folder"):
        make_tasks("small", "nowhere", {})
    with pytest.raises(InputError, match="no task can be run: retrieval:flickr8k: no data"):
        suite.open_tasks(make_tasks("retrieval:flickr8k", "", {}))


@pytest.mark.parametrize("task", ["zeroshot_retrieval", "crisscrossed", "knn"])
def test_names_of_result_files_are_read_back(task):
    names = ("i2t_recall_at_1", "top_1", "knn_recall_at_5", "mean_per_class", "t2i_median_rank")
    values = dict.fromkeys(names, 0.5)
    assert names_of_json(json_names(values, task), task) == values
