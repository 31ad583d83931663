import csv
import dataclasses
import functools
import json
import runpy
import sys
import warnings
import zipfile

import classification_tasks
import evaluate
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, SHARED, TINY_IMAGE_SIZE, TINY_SEQUENCE, build_tiny_model
from PIL import Image

from align_keras import AlignDualEncoder, AlignPreprocessor
from align_keras.data import records
from align_keras.data.examples import examples
from align_keras.evaluation import data_sets, embedding, report, retrieval, zero_shot


@pytest.fixture(scope="module")
def preset(tmp_path_factory, pieces):
    """An untrained model of two layers, as a run leaves it."""
    run = tmp_path_factory.mktemp("run")
    preprocessor = AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)
    model = build_tiny_model(preprocessor=preprocessor, vocabulary_size=len(pieces))
    model.save_to_preset(run / "preset")
    return run


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """Spares loading the same preset for every task."""
    monkeypatch.setattr(evaluate, "load_model", load_model)


load_model = functools.cache(evaluate.load_model)


@pytest.fixture(scope="module")
def pairs(scene_shards):
    """Fields of the held-out scenes."""
    frames = [frame for shard in scene_shards[1] for frame in records.read_frames(shard)]
    return [records.parse_pair(frame) for frame in frames]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pairs):
    """Thirty scenes: folders of classes and a table, three captions an image; two splits."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for index, pair in enumerate(pairs):
        split, name = ("test", "train")[index % 2], ("ring", "cross", "star")[index // 2 % 3]
        path = folder / split / name / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pair["jpg"])
        caption = pair["txt"].decode()
        rows.append(
            {
                "image": str(path.relative_to(folder)),
                "captions": [caption, f"{caption} again", f"picture {index}"],
                "class_name": name,
                "split": split,
            }
        )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(preset, output, task, **options):
    settings = evaluate.EvaluateSettings(
        model=str(preset),
        task=task,
        output=str(output),
        cache=str(output / "cache"),
        **{name: str(value) if name == "data" else value for name, value in options.items()},
    )
    return evaluate.main(settings)


def read_json(path):
    return json.loads(path.read_text())


def test_retrieval_of_a_table_is_that_of_its_embeddings(preset, photos, tmp_path, capsys):
    metrics = run(preset, tmp_path, "retrieval:photos", data=photos / "pairs.jsonl", fold_size=5)
    rows = [json.loads(line) for line in (photos / "pairs.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "test"]
    model = AlignDualEncoder.from_preset(str(preset / "preset"))
    images = model.encode_images([photos / row["image"] for row in rows])
    texts = model.encode_texts([text for row in rows for text in row["captions"]])
    places = np.repeat(np.arange(len(rows)), 3)
    expected, _ = retrieval.full_metrics(images, texts, places)
    assert metrics == pytest.approx(report.clip_benchmark_names(expected), abs=1e-6)
    result = read_json(tmp_path / "retrieval-photos.json")
    assert result["metrics"] == metrics
    assert (result["dataset"], result["task"]) == ("photos", "zeroshot_retrieval")
    assert result["pretrained"] == str(preset)
    assert result["metrics"].keys() == result["folds"].keys()
    assert result["chance"]["image_retrieval_recall@5"] == pytest.approx(5 / 15)
    assert result["chance"]["text_retrieval_recall@1"] == pytest.approx(3 / 45)
    assert (tmp_path / "retrieval-photos.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "photos: 15 images, 45 captions" in printed
    assert "mean over folds of 5 images" in printed


def test_shards_karpathys_file_and_tables_give_the_same(photos, tmp_path, scene_shards, preset):
    rows = [json.loads(line) for line in (photos / "pairs.jsonl").read_text().splitlines()]
    images = [
        {
            "filename": row["image"].rpartition("/")[2],
            "filepath": row["image"].rpartition("/")[0],
            "split": row["split"],
            "sentences": [{"raw": text} for text in row["captions"]],
        }
        for row in rows
    ]
    (tmp_path / "karpathy.json").write_text(json.dumps({"images": images}))
    with records.ShardWriter(str(tmp_path / "shard"), 100) as writer:
        for row in rows:
            if row["split"] == "test":
                jpg = (photos / row["image"]).read_bytes()
                for text in row["captions"]:
                    writer.write(records.make_record(jpg, text, "k", image_id=row["image"]))
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for row in rows:
            writer.writerows([[row["image"], text, row["split"]] for text in row["captions"]])
    found = []
    for data, options in (
        (photos / "pairs.jsonl", {}),
        (tmp_path / "karpathy.json", {"images": str(photos)}),
        (tmp_path / "shard-*.tfrecord", {}),
        (tmp_path / "pairs.csv", {"images": str(photos)}),
    ):
        found.append(run(preset, tmp_path, "retrieval:photos", data=data, **options))
    for metrics in found[1:]:
        assert metrics == found[0]


def test_zero_shot_of_folders_and_tables_is_the_same(preset, photos, tmp_path):
    prompts = ("a {}", "{} there")
    folder = run(preset, tmp_path, "zero_shot:kinds", data=photos, split="test", prompts=prompts)
    table = run(preset, tmp_path, "zero_shot:kinds", data=photos / "pairs.jsonl", prompts=prompts)
    assert folder == table
    result = read_json(tmp_path / "zero_shot-kinds.json")
    assert result["task"] == "zeroshot_classification"
    assert result["metrics"].keys() == {"acc1", "acc5", "mean_per_class_recall"}
    for picture in ("confusion", "images"):
        assert (tmp_path / f"zero_shot-kinds-{picture}.png").stat().st_size > 5_000
    # Once embedded, classes are read from the disk.
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_class_weights_are_cached_by_model_names_and_prompts(preset, tmp_path, monkeypatch):
    model = AlignDualEncoder.from_preset(str(preset / "preset"))
    names, prompts = ["red ring", "blue cross"], ["a {}", "{}"]
    classes = embedding.class_weights(model, names, prompts, str(tmp_path))
    texts = model.encode_texts(zero_shot.fill_prompts(names, prompts))
    np.testing.assert_allclose(classes, zero_shot.class_embeddings(texts, 2), atol=1e-6)
    calls = []
    encode = model.encode_texts
    monkeypatch.setattr(model, "encode_texts", lambda *a: calls.append(a) or encode(*a))
    np.testing.assert_array_equal(
        embedding.class_weights(model, names, prompts, str(tmp_path)), classes
    )
    assert not calls
    embedding.class_weights(model, names[::-1], prompts, str(tmp_path))
    embedding.class_weights(model, names, prompts[:1], str(tmp_path))
    weight = model.backbone.text_projection.weights[0]
    weight.assign(weight + 1e-3)
    embedding.class_weights(model, names, prompts, str(tmp_path))
    assert len(calls) == len(list(tmp_path.glob("*.npy"))) - 1 == 3


def test_probes_run_on_tables_and_folders(preset, photos, tmp_path):
    for task in ("knn", "linear_probe"):
        folder = run(preset, tmp_path, f"{task}:kinds", data=photos, split="test")
        table = run(preset, tmp_path, f"{task}:kinds", data=photos / "pairs.jsonl")
        assert read_json(tmp_path / f"{task}-kinds.json")["task"] == task
        if task == "knn":  # the order of the images matters to the other
            assert table == folder
    assert 0 <= table["acc1"] <= table["acc5"] <= 1
    with pytest.raises(ValueError, match="--train-split: .* train would be trained and tested on"):
        run(preset, tmp_path, "knn:kinds", data=photos, split="train", train_split="train")


def test_crisscrossed_scores_what_is_there(preset, photos, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images, captions = np.arange(15), np.arange(30)
    annotations = [
        {"id": int(own), "image_id": int(own) // 2, "caption": f"a red ring {own}"}
        for own in captions
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"annotations": annotations}))
    (tmp_path / "val2014").mkdir()
    sources = sorted((photos / "test").rglob("*.jpg"))
    for own, source in zip(images, sources, strict=True):
        target = tmp_path / "val2014" / f"COCO_val2014_{own:012d}.jpg"
        target.write_bytes(source.read_bytes())
    image = "COCO_val2014_{:012d}.jpg".format
    caption = "COCO_val2014:sentid:{}".format
    for kind, header, first, second in (
        ("sts", "caption1,caption2", (caption, captions), (caption, captions)),
        ("sis", "image1,image2", (image, images), (image, images)),
        ("sits", "caption,image", (caption, captions), (image, images)),
    ):
        lines = [f"{header},agg_score,sampling_method"]
        for own in first[1]:
            for other in rng.choice(second[1], 3, replace=False):
                score = rng.uniform(0, 5)
                lines.append(f"{first[0](own)},{second[0](other)},{score:.2f},x")
        (tmp_path / f"{kind}_test.csv").write_text("\n".join(lines) + "\n")
    options = {"captions": str(tmp_path / "captions.json"), "bootstrap_samples": 20}
    whole = run(
        preset,
        tmp_path,
        "crisscrossed",
        data=tmp_path,
        images=str(tmp_path / "val2014"),
        **options,
    )
    for kind in ("sts", "sis", "sits"):
        assert -1 <= whole[f"{kind}_spearman"] <= 1
        assert whole[f"{kind}_spearman_deviation"] > 0
    for way in ("i2t", "t2i", "t2t", "i2i"):
        assert 0 <= whole[f"{way}_recall@1"] <= whole[f"{way}_recall@10"] <= 1
    assert whole["sits_spearman_pairs"] == 90
    capsys.readouterr()
    texts = run(preset, tmp_path, "crisscrossed", data=tmp_path, **options)
    assert texts.keys() == {name for name in whole if name.startswith(("sts", "t2t"))}
    assert all(texts[name] == pytest.approx(whole[name], abs=1e-6) for name in texts)
    assert "no --images: SIS, SITS" in capsys.readouterr().out
    with pytest.raises(ValueError, match="30 captions and 15 images of COCO are judged"):
        run(preset, tmp_path, "crisscrossed", data=tmp_path)


def test_multi30k_compares_captions_and_images(preset, photos, tmp_path, capsys):
    files = sorted((photos / "test").rglob("*.jpg"))
    for language in ("en", "de"):
        lines = [f"{language} caption number {index}" for index in range(len(files))]
        (tmp_path / f"test_2016_flickr.{language}").write_text("\n".join(lines) + "\n")
    texts = run(preset, tmp_path, "multi30k", data=tmp_path)
    assert texts.keys() == {"text_mean_recall_en_de", "unknown_pieces_en", "unknown_pieces_de"}
    assert "no --images: the recalls of images are left out" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("".join(f"{i}.jpg\n" for i in range(len(files))))
    for index, file in enumerate(files):
        (tmp_path / f"{index}.jpg").write_bytes(file.read_bytes())
    options = {"images": str(tmp_path), "captions": str(tmp_path / "names.txt")}
    whole = run(preset, tmp_path, "multi30k", data=tmp_path, **options)
    assert {"mean_recall_en", "mean_recall_de"} == whole.keys() - texts.keys()
    (tmp_path / "3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"--images: no 3\.jpg in .* \(1 missing\)"):
        run(preset, tmp_path, "multi30k", data=tmp_path, **options)


def test_known_data_sets_have_prompts_and_names():
    for name in data_sets.DATA_SETS:
        for prompt in data_sets.prompts_of(name):
            assert "{}" in prompt, name
    assert len(data_sets.prompts_of("imagenet_r")) == 80
    names = data_sets.class_names_of("imagenet")
    assert len(names) == len(set(data_sets.imagenet_wnids())) == 1000
    assert data_sets.imagenet_wnids() == sorted(data_sets.imagenet_wnids())
    assert data_sets.prompts_of("mine") == ("a photo of a {}.",)
    assert data_sets.class_names_of("cifar10") is None


def test_imagenets_folders_and_labels_find_their_classes(tmp_path, preset, pairs):
    wnids = data_sets.imagenet_wnids()
    for wnid in (wnids[3], wnids[7]):
        (tmp_path / "data" / wnid).mkdir(parents=True)
        (tmp_path / "data" / wnid / "a.jpg").write_bytes(pairs[0]["jpg"])
    settings = evaluate.EvaluateSettings("m", "zero_shot:imagenet_a", data=str(tmp_path / "data"))
    data = examples.open_examples(settings.data)
    images = classification_tasks.embed_labelled(
        settings, "imagenet_a", data, lambda images, _: np.zeros((len(images), 2))
    )
    assert images.labels.tolist() == [3, 7]
    # Of ImageNet-A and -R only the classes that have images take part.
    metrics = run(preset, tmp_path, "zero_shot:imagenet_a", data=settings.data, prompts=("{}",))
    assert read_json(tmp_path / "zero_shot-imagenet_a.json")["chance"]["acc1"] == 0.5
    assert metrics["acc5"] == 1.0


def test_a_tfds_set_prepared_in_a_folder_is_evaluated(preset, photos, tmp_path):
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
        warnings.simplefilter("ignore")  # TFDS's own
        files = sorted((photos / "test").rglob("*.jpg"))
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
        data = examples.open_examples(f"tfds:{folder}")
        assert data.class_names == ("some ring", "cross")
        assert sorted(example.label for example in data) == [0] * 8 + [1] * 7
        metrics = run(preset, tmp_path, "zero_shot:rings", data=f"tfds:{folder}")
    assert 0 <= metrics["acc1"] <= 1
    with pytest.raises(ValueError, match="has no split 'val'; it has test"):
        examples.open_examples(f"tfds:{folder}@val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "retrieve:coco"}, "--task: no 'retrieve'; choose one of retrieval, zero_shot"),
        ({"task": "zero_shot"}, "--task: give zero_shot the name of a data set"),
        ({"task": "retrieval:flickr30k"}, "--data: give the data of flickr30k; TFDS does not"),
        ({"task": "retrieval:mine"}, "--data: give the data of mine; it is not a known name"),
        ({"data": "none.jsonl"}, "--data: no file none.jsonl"),
        ({"data": "none-*.tfrecord"}, "--data: no file matches 'none-"),
        ({"data": "{photos}/test/empty"}, "--data: .*empty has no folders of images"),
        ({"data": "{photos}/pairs.jsonl", "split": "dev"}, "has no row with split=dev"),
        ({"data": "{photos}/pairs.jsonl", "select": ("x",)}, "--select: 'x' must be COLUMN=VALUE"),
        ({"data": "{photos}/no.json"}, "--data: no file .*no.json"),
        ({"model": "none"}, "--model: none: no such folder"),
        ({"task": "zero_shot:kinds", "prompts": ("a",)}, "--prompts: no {} for the class name"),
        ({"task": "zero_shot:kinds", "class_names": "none.txt"}, "--class-names: no file none"),
        (
            {"data": "{photos}/bad.jsonl"},
            r"--data: bad\.jsonl line 1 .*: does not decode",
        ),
        ({"data": "{photos}/mute.jsonl"}, "has no caption, as have 1 of 1; retrieval needs"),
        ({"data": "{photos}/gone.jsonl"}, r"--data: gone\.jsonl line 1 .*: image cannot be read"),
        ({"task": "zero_shot:cifar10", "data": "{photos}/gone2.jsonl"}, "its class .* is none"),
        ({"task": "knn:kinds", "data": "{photos}/test"}, "--train-data: no folder .*test/train of"),
        (
            {"task": "knn:kinds", "data": "{photos}/test-*.tfrecord"},
            "--train-data: shards have no split train; give a pattern",
        ),
        ({"task": "crisscrossed"}, "--data: give the folder of sts_test.csv"),
        ({"task": "multi30k", "data": "{photos}"}, "--data: no test_2016_flickr.en"),
    ],
)
def test_what_is_wrong_is_one_line(options, message, preset, photos, tmp_path):
    (photos / "test" / "empty").mkdir(exist_ok=True)
    (photos / "bad.jpg").write_bytes(b"\xff\xd8broken")
    image = json.loads((photos / "pairs.jsonl").read_text().splitlines()[0])["image"]
    for name, row in (
        ("bad", {"image": "bad.jpg", "caption": "x"}),
        ("mute", {"image": image}),
        ("gone", {"image": "gone.jpg", "caption": "x"}),
        ("gone2", {"image": image, "class_name": "ring", "label": 99}),
    ):
        (photos / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (photos / "test-0.tfrecord").touch()
    options = {"task": "retrieval:photos", "data": "{photos}/pairs.jsonl", **options}
    if "data" in options and options["task"] in ("retrieval:flickr30k", "retrieval:mine"):
        options["data"] = ""
    if options["task"] == "crisscrossed":
        options["data"] = ""
    options["data"] = options["data"].format(photos=photos)
    settings = evaluate.EvaluateSettings(**{"model": str(preset), **options})
    settings = dataclasses.replace(settings, output=str(tmp_path), cache="")
    with pytest.raises((ValueError, OSError), match=message) as raised:
        evaluate.main(settings)
    assert "\n" not in str(raised.value)


def test_the_command_ends_in_one_line_and_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--model=none", "--task=retrieval:coco_mini"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / "evaluate.py"), run_name="__main__")
    assert stopped.value.code.startswith("evaluate.py: --data: give the data of coco_mini")


def test_shared_photographs_are_evaluated(preset, tmp_path):
    data = SHARED / "data"
    if not data.exists():
        pytest.skip(f"no shared data at {data}; rendered scenes are evaluated above")
    coco = data / "captions" / "coco_mini"
    metrics = run(preset, tmp_path, "retrieval:coco_mini", data=coco / "pairs.jsonl")
    assert metrics["image_retrieval_median_rank"] > 1
    with zipfile.ZipFile(coco / "images-00.zip") as archive:
        assert len(archive.namelist()) == 179
    clothing = data / "classification" / "clothing" / "labels.jsonl"
    for task in ("zero_shot", "knn"):
        run(preset, tmp_path, f"{task}:clothing", data=clothing)
        chance = read_json(tmp_path / f"{task}-clothing.json")["chance"]
        assert min(chance.values()) == pytest.approx(1 / 17, abs=0.01)
    sample = data / "classification" / "imagenet_sample" / "labels.jsonl"
    run(preset, tmp_path, "zero_shot:imagenet", data=sample, prompts=("{}",))
    assert read_json(tmp_path / "zero_shot-imagenet.json")["chance"]["acc1"] == 1 / 1000
