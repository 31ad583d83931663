"""Writes photographs of a realistic size, with captions, for benchmarks: as files and as shards."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, QUALITY = 640, 480, 90
_SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def write(directory, count, shard_size=128):
    """Writes ``count`` JPEG files, their captions, and shards of both; returns a line about them.

    If the shared data are beside the repository, the images are real photographs, scaled up, and
    the captions are real alt-texts. When all photographs are used, they are used again with other
    crops. Without the shared data, the images are waves with noise.
    """
    from align_keras.data import records
    from align_keras.data.shard_writer import ShardWriter

    real = (_SHARED / "classification" / "imagenet_sample").exists()
    pixels = _shared_pixels() if real else _wave_pixels()
    captions = _captions(count, real)
    size = 0
    with ShardWriter(str(directory / "train"), shard_size) as writer:
        for index, (picture, caption) in enumerate(zip(pixels, captions, strict=False)):
            buffer = io.BytesIO()
            picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(
                buffer, "JPEG", quality=QUALITY
            )
            jpg = buffer.getvalue()
            size += len(jpg)
            (directory / f"{index:05d}.jpg").write_bytes(jpg)
            writer.write(records.make_record(jpg, caption, str(index), image_id=index))
    (directory / "captions.json").write_text(json.dumps(captions))
    kind = "photographs scaled up" if real else "generated images"
    texts = "web alt-texts" if real else "generated captions"
    return (
        f"{count:,} {kind} to {WIDTH} x {HEIGHT}, JPEG of quality {QUALITY} "
        f"({size / count / 1024:.0f} KiB each), {texts}"
    )


def _shared_pixels():
    """Yields Pillow images without end: whole photographs in the first round, then random crops."""
    folder = _SHARED / "classification" / "imagenet_sample"
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    archives = {}
    rng = np.random.default_rng(0)
    zoom = 1.0
    while True:
        for row in rows:
            if row["archive"] not in archives:
                archives[row["archive"]] = zipfile.ZipFile(folder / row["archive"])
            data = archives[row["archive"]].read(row["image"])
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            width, height = int(picture.width * zoom), int(picture.height * zoom)
            x = int(rng.integers(picture.width - width + 1))
            y = int(rng.integers(picture.height - height + 1))
            yield picture.crop((x, y, x + width, y + height))
        zoom = 0.8


def _wave_pixels():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    while True:
        waves = [
            128 + 90 * np.sin(x / rng.uniform(5, 90) + y / rng.uniform(5, 90)) for _ in range(3)
        ]
        noise = rng.normal(0, 12, (HEIGHT, WIDTH, 3))
        yield Image.fromarray(np.clip(np.stack(waves, -1) + noise, 0, 255).astype("uint8"))


def _captions(count, real):
    path = _SHARED / "metadata" / "laion_alt_text_sample.tsv.gz"
    if real and path.exists():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            next(file)
            texts = [line.rstrip("\n").partition("\t")[2] for line in file]
        texts = [text for text in texts if text.strip()]
        return [texts[index % len(texts)] for index in range(count)]
    rng = np.random.default_rng(1)
    words = ["red", "dog", "snow", "buy", "vintage", "photo", "of", "the", "mountain", "2014", "XL"]
    return [" ".join(rng.choice(words, rng.integers(3, 20))) for _ in range(count)]


def vocabulary(directory, captions):
    """Returns the path of a BERT ``vocab.txt``: the shared one, or one trained on the captions."""
    shared = _SHARED / "metadata" / "bert_base_uncased_vocab.txt"
    if shared.exists():
        return str(shared)
    from align_keras.data.vocabulary import train_vocabulary
    from align_keras.preprocessing.tokenizer import write_vocabulary

    path = str(directory / "vocab.txt")
    write_vocabulary(train_vocabulary(captions, 8_000), path)
    return path
