import json
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from align_keras.data import examples
from align_keras.errors import InputError, Place
from align_keras.evaluation import data_sets
from align_keras.evaluation.tasks import classes
from align_keras.evaluation.tasks.classification import LinearProbe, NearestNeighbours, ZeroShot
from align_keras.evaluation.tasks.evaluate import evaluate


def read_json(path):
    return json.loads(path.read_text())


def test_zero_shot_of_folders_and_tables_is_the_same(tiny_model, scene_photos, tmp_path):
    options = {"prompts": ("a {}", "{} there"), "cache": str(tmp_path / "cache")}
    folder = ZeroShot("kinds", str(scene_photos), "test", **options)
    table = ZeroShot("kinds", str(scene_photos / "pairs.jsonl"), **options)
    found = [evaluate(tiny_model, task, tmp_path).metrics for task in (folder, table)]
    assert found[0] == found[1]
    result = read_json(tmp_path / "zero_shot-kinds.json")
    assert result["task"] == "zeroshot_classification"
    assert result["metrics"].keys() == {"acc1", "acc5", "mean_per_class_recall"}
    for picture in ("confusion", "images"):
        assert (tmp_path / f"zero_shot-kinds-{picture}.png").stat().st_size > 5_000
    # Classes are embedded once and then read from disk.
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


@pytest.mark.parametrize("kind", [NearestNeighbours, LinearProbe])
def test_probes_run_on_tables_and_folders(kind, tiny_model, scene_photos, tmp_path):
    folder = evaluate(tiny_model, kind("kinds", str(scene_photos), "test"), tmp_path)
    table = evaluate(tiny_model, kind("kinds", str(scene_photos / "pairs.jsonl")), tmp_path)
    assert read_json(tmp_path / f"{kind.kind}-kinds.json")["task"] == kind.kind
    assert folder.metrics.keys() == table.metrics.keys()
    assert all(0 <= value <= 1 for value in table.metrics.values())
    if kind is NearestNeighbours:  # the linear probe depends on the order of the images
        assert table.metrics == folder.metrics


def test_a_probe_is_not_trained_on_what_it_is_tested_on(scene_photos):
    task = NearestNeighbours("kinds", str(scene_photos), "train", train_split="train")
    with pytest.raises(InputError, match="train would be used for both training") as caught:
        task.open()
    assert caught.value.setting == "train_split"


def test_an_error_names_the_part_of_the_data(tiny_model, scene_photos, monkeypatch):
    test = examples.open_examples(scene_photos, "test")

    def open_examples(data, split, *_):
        raise InputError(f"{data} has no {split}")

    monkeypatch.setattr(examples, "open_examples", open_examples)
    with pytest.raises(InputError, match="photos has no test") as caught:
        ZeroShot("kinds", "photos", "test").open()
    assert caught.value.setting == "data"
    monkeypatch.setattr(
        examples, "open_examples", lambda *a: test if a[1] == "test" else open_examples(*a)
    )
    with pytest.raises(InputError, match="photos has no train") as caught:
        NearestNeighbours("kinds", "photos", "test").open()
    assert caught.value.setting == "train_data"


def test_an_unknown_class_is_named(tiny_model, scene_photos, tmp_path):
    image = str(next(scene_photos.rglob("*.jpg")).relative_to(scene_photos))
    row = {"image": image, "class_name": "ring", "label": 5000}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    options = {"data": str(tmp_path / "rows.jsonl"), "images": str(scene_photos)}
    task = ZeroShot("imagenet", **options, prompts=("{}",))
    with pytest.raises(InputError, match=r"its class \(ring\) is none of the 1,000") as caught:
        task.run(tiny_model, task.open(), tmp_path)
    assert caught.value.setting == "data"
    assert image in str(caught.value.place)
    task = ZeroShot("kinds", **options, prompts=("no name",))
    with pytest.raises(InputError, match="no {} for the class name") as caught:
        task.run(tiny_model, task.open(), tmp_path)
    assert caught.value.setting == "prompts"
    task = ZeroShot("kinds", **options, class_names=str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="no such file") as caught:
        task.run(tiny_model, task.open(), tmp_path)
    assert caught.value.setting == "class_names"
    assert caught.value.place.file == str(tmp_path / "none.txt")


def test_labels_and_names_find_their_classes():
    kinds = classes.Classes("kinds", ["ring", "cross", "ring"])
    assert kinds.label_of(Place(), None, "ring") == 0
    assert kinds.label_of(Place(), 2, "cross") == 2
    with pytest.raises(InputError) as caught:
        kinds.label_of(Place("a.csv", "line 3"), 3, "")
    assert caught.value.place.row == "line 3"


def test_imagenets_folders_and_labels_find_their_classes(tiny_model, scene_images, tmp_path):
    wnids = data_sets.imagenet_wnids()
    for wnid in (wnids[3], wnids[7]):
        (tmp_path / "data" / wnid).mkdir(parents=True)
        (tmp_path / "data" / wnid / "a.jpg").write_bytes(scene_images[0])
    data = examples.open_examples(str(tmp_path / "data"))
    images = classes.embed_labelled(
        "imagenet_a",
        data,
        lambda images, **_: np.zeros((len(images), 2)),
        tiny_model.preprocessor,
        8,
        classes.read_class_names("imagenet_a", "", data),
    )
    assert images.labels.tolist() == [3, 7]
    # ImageNet-A and -R use only the classes that have images.
    task = ZeroShot("imagenet_a", str(tmp_path / "data"), prompts=("{}",))
    found = evaluate(tiny_model, task, tmp_path)
    assert read_json(tmp_path / "zero_shot-imagenet_a.json")["chance"]["acc1"] == 0.5
    assert found.metrics["top_5"] == 1.0


def test_a_tfds_set_prepared_in_a_folder_is_evaluated(tiny_model, scene_photos, tmp_path):
    tfds = pytest.importorskip(
        "tensorflow_datasets", reason="no tensorflow-datasets; pip install '.[tfds]'"
    )
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=["some_ring", "cross"]),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from TFDS itself
        files = sorted((scene_photos / "test").rglob("*.jpg"))
        pixels = np.stack([np.asarray(Image.open(file)) for file in files])
        rows = tf.data.Dataset.from_tensor_slices(
            {"image": pixels, "label": np.arange(len(files)) % 2}
        )
        tfds.dataset_builders.store_as_tfds_dataset(
            name="rings",
            version="1.0.0",
            features=features,
            split_datasets={"test": rows},
            data_dir=str(tmp_path),
            config="plain",
        )
        folder = next(tmp_path.rglob("dataset_info.json")).parent
        task = ZeroShot("rings", f"tfds:{folder}")
        data = task.open()
        assert data.class_names == ("some ring", "cross")
        assert sorted(example.label for example in data) == [0] * 8 + [1] * 7
        found = evaluate(tiny_model, task, tmp_path, data=data)
    assert 0 <= found.metrics["top_1"] <= 1
    with pytest.raises(ValueError, match="has no split 'val'; it has test"):
        ZeroShot("rings", f"tfds:{folder}@val").open()
