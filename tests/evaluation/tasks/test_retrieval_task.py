import csv
import json
import zipfile

import numpy as np
import pytest
from conftest import SHARED

from align_keras.data import records
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError
from align_keras.evaluation import metrics, retrieval
from align_keras.evaluation.tasks.classification import NearestNeighbours, ZeroShot
from align_keras.evaluation.tasks.evaluate import evaluate
from align_keras.evaluation.tasks.retrieval import Retrieval


def read_json(path):
    return json.loads(path.read_text())


def read_rows(photos):
    return [json.loads(line) for line in (photos / "pairs.jsonl").read_text().splitlines()]


def test_a_table_gives_the_recalls_of_its_embeddings(tiny_model, scene_photos, tmp_path, capsys):
    task = Retrieval("photos", str(scene_photos / "pairs.jsonl"), fold_size=5)
    found = evaluate(tiny_model, task, tmp_path, "a preset").metrics
    rows = [row for row in read_rows(scene_photos) if row["split"] == "test"]
    images = tiny_model.encode_images([scene_photos / row["image"] for row in rows])
    texts = tiny_model.encode_texts([text for row in rows for text in row["captions"]])
    places = np.repeat(np.arange(len(rows)), 3)
    expected, _ = retrieval.full_metrics(images, texts, places)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found.keys() > set(metrics.RECALLS)
    result = read_json(tmp_path / "retrieval-photos.json")
    assert result["metrics"] == metrics.json_names(found, "zeroshot_retrieval")
    assert (result["dataset"], result["task"]) == ("photos", "zeroshot_retrieval")
    assert result["pretrained"] == "a preset"
    assert result["metrics"].keys() == result["folds"].keys()
    assert result["chance"]["image_retrieval_recall@5"] == pytest.approx(5 / 15)
    assert result["chance"]["text_retrieval_recall@1"] == pytest.approx(3 / 45)
    assert (tmp_path / "retrieval-photos.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "photos: 15 images (split test), 45 captions" in printed
    assert "mean over folds of 5 images" in printed


def test_shards_karpathys_file_and_tables_give_the_same(tiny_model, scene_photos, tmp_path):
    rows = read_rows(scene_photos)
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
    with ShardWriter(str(tmp_path / "shard"), 100) as writer:
        for row in rows:
            if row["split"] == "test":
                jpg = (scene_photos / row["image"]).read_bytes()
                for text in row["captions"]:
                    writer.write(records.make_record(jpg, text, "k", image_id=row["image"]))
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for row in rows:
            writer.writerows([[row["image"], text, row["split"]] for text in row["captions"]])
    tasks = [
        Retrieval("photos", str(scene_photos / "pairs.jsonl")),
        Retrieval("photos", str(tmp_path / "karpathy.json"), images=str(scene_photos)),
        Retrieval("photos", str(tmp_path / "shard-*.tfrecord")),
        Retrieval("photos", str(tmp_path / "pairs.csv"), images=str(scene_photos)),
    ]
    found = [task.run(tiny_model, task.open(), tmp_path).metrics for task in tasks]
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"image": "bad.jpg", "caption": "x"}, "does not decode"),
        ({"image": "good.jpg", "caption": " "}, "no caption; 1 of 2 images have none"),
        ({"image": "gone.jpg", "caption": "x"}, "image cannot be read"),
    ],
)
def test_an_unusable_image_is_named(row, problem, tiny_model, scene_images, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8broken")
    (tmp_path / "good.jpg").write_bytes(scene_images[0])
    (tmp_path / "0.jpg").write_bytes(scene_images[1])
    rows = [{"image": "0.jpg", "caption": "a ring"}, row]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Retrieval("photos", str(tmp_path / "pairs.jsonl"))
    with pytest.raises(InputError) as caught:
        task.run(tiny_model, task.open(), tmp_path)
    assert problem in caught.value.problem
    assert caught.value.setting == "data"
    assert (caught.value.place.row, caught.value.place.member) == ("line 2", row["image"])


def test_shared_photographs_are_evaluated(tiny_model, tmp_path):
    data = SHARED / "data"
    if not data.exists():
        pytest.skip(f"no shared data at {data}; rendered scenes are evaluated above")
    coco = data / "captions" / "coco_mini"
    found = evaluate(tiny_model, Retrieval("coco_mini", str(coco / "pairs.jsonl")), tmp_path)
    assert found.metrics["t2i_median_rank"] > 1
    with zipfile.ZipFile(coco / "images-00.zip") as archive:
        assert len(archive.namelist()) == 179
    clothing = str(data / "classification" / "clothing" / "labels.jsonl")
    for task in (ZeroShot("clothing", clothing), NearestNeighbours("clothing", clothing)):
        found = evaluate(tiny_model, task, tmp_path)
        assert min(found.chance.values()) == pytest.approx(1 / 17, abs=0.01)
    sample = str(data / "classification" / "imagenet_sample" / "labels.jsonl")
    found = evaluate(tiny_model, ZeroShot("imagenet", sample, prompts=("{}",)), tmp_path)
    assert found.chance["top_1"] == 1 / 1000


def test_captions_shared_between_images_are_announced(tiny_model, scene_photos, tmp_path, capsys):
    rows = [row for row in read_rows(scene_photos) if row["split"] == "test"][:4]
    for row, caption in zip(rows, ["tomato", "tomato", "basil", "rocket"], strict=True):
        row |= {"image": str(scene_photos / row["image"]), "captions": [caption]}
    table = tmp_path / "pairs.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    evaluate(tiny_model, Retrieval("photos", str(table)), tmp_path)
    line = "2 of 4 captions belong to more than one image."
    assert f"4 images (split test), 4 captions\n{line}" in capsys.readouterr().out
    assert read_json(tmp_path / "retrieval-photos.json")["remark"].startswith(line)
