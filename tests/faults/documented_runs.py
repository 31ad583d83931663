"""Runs documented commands and examples on small data, each as a function in its own process."""

import csv
import io
import json
import os
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from in_process import run_recipe_plainly
from PIL import Image

#: Flags that make a command short; if a flag is given twice, the last one counts.
SHORT = {
    "pretrain.py": "--steps=4 --warmup-steps=1 --batch-size=16 --eval-every=4 --log-every=2 "
    "--checkpoint-every=4",
    "finetune_retrieval.py": "--steps=2 --batch-size=16 --eval-every=2 --log-every=1 "
    "--checkpoint-every=2",
    "finetune_classification.py": "--head.steps=2 --full.steps=2 --head.epochs=0 --full.epochs=0 "
    "--batch-size=16 --checkpoint-every=2 --log-every=1",
    "search.py serve": "--port=0",
}


def make_folder(material, folder):
    """Makes the files that the pages name, from the scenes of ``commands.make_material``."""
    photos = folder / "PHOTOS"
    shutil.copytree(material / "photos", photos)
    rows = [json.loads(line) for line in (photos / "pairs.jsonl").read_text().splitlines()]
    files = [photos / row["image"] for row in rows]
    for split, name in (("train", "train"), ("test", "val")):
        write_table(photos / f"{name}.csv", [row for row in rows if row["split"] == split])
    (folder / "BIRDS").mkdir()
    labels = [row | {"image": f"../PHOTOS/{row['image']}"} for row in rows]
    write_table(folder / "BIRDS" / "labels.csv", labels)
    for name in ("photos/cat.jpg", "photos/robin.jpg", "dress.jpg", "COCO/val2017/0.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files[0], folder / name)
    (folder / "names.txt").write_text("ring\ncross\n")
    captions = [row["caption"] for row in rows]
    urls = [f"page/{number}.jpg" for number in range(len(rows))]
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "RAW.parquet")
    (folder / "CRAWL").mkdir()
    with tarfile.open(folder / "CRAWL" / "00000.tar", "w") as tar:
        for number, path in enumerate(files[:20]):
            large = io.BytesIO()
            Image.open(path).resize((300, 240)).save(large, "JPEG")
            record = {"url": urls[number], "width": 300, "height": 240, "status": "success"}
            for suffix, data in (
                ("jpg", large.getvalue()),
                ("txt", captions[number].encode()),
                ("json", json.dumps(record | {"caption": captions[number]}).encode()),
            ):
                member = tarfile.TarInfo(f"{number:05}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_table(path, rows):
    """Writes rows as a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def run_recipe(folder, recipe, *arguments):
    """Runs a recipe in a folder; the process ends as the command does."""
    os.chdir(folder)
    raise SystemExit(run_recipe_plainly(recipe, *arguments))


def run_code(folder, code):
    """Runs an example in a folder."""
    os.chdir(folder)
    exec(compile(code, "example", "exec"), {})
