"""Compares the paper's rules and packing with the same rules in pandas and Pillow.

    python benchmarks/data_rules.py [--rows=1000000] [--images=4000]

Each case runs in its own process. Peak memory is that of the whole process. Both programs must keep
the same pairs.
"""

import argparse
import collections
import io
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure
import numpy as np
from PIL import Image

from align_keras.data import paper_rules, records
from align_keras.data.examples.table_examples import TableExamples
from align_keras.data.preparation import filters, single_machine
from align_keras.data.preparation.judging import Preparation
from align_keras.data.shard_writer import ShardWriter

_VOCABULARY = 400_000
_COMMON = 100
_BATCH = 50_000
_PHOTOGRAPH = (640, 480)


def write_table(path, count, images):
    """Writes captions of 1 to 24 words, which are drawn by Zipf's law.

    Half of the captions have common words only. One caption in a hundred is one of ten fixed texts.
    """
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    words = np.array([f"word{index:x}" for index in range(_VOCABULARY)])
    odds = 1 / np.arange(1, _VOCABULARY + 1) ** 1.05
    odds /= odds.sum()
    schema = pyarrow.schema([("image", pyarrow.string()), ("caption", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, count, _BATCH):
            lengths = rng.integers(1, 25, min(_BATCH, count - start))
            common = np.repeat(rng.random(len(lengths)) < 0.5, lengths)
            drawn = rng.choice(_VOCABULARY, len(common), p=odds)
            drawn = words[np.where(common, drawn % _COMMON, drawn)]
            captions = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
            for place in np.flatnonzero(rng.random(len(captions)) < 0.01):
                captions[place] = f"click here for image {place % 10}"
            names = [images(start + index) for index in range(len(captions))]
            writer.write_table(pyarrow.table({"image": names, "caption": captions}, schema))


def write_photographs(folder, count):
    """Writes JPEG files of smooth noise, as large as photographs; one in ten is small or long."""
    rng = np.random.default_rng(0)
    for index in range(count):
        size = ((150, 480), (1000, 250))[index // 10 % 2] if index % 10 == 0 else _PHOTOGRAPH
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3)).astype("uint8"))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=90)


# === Cases ===


def ours(table, frequent, table_only, output):
    """Filters with this package, on one machine."""
    rules = filters.Rules(frequent_ngrams=frequent)
    preparation = Preparation(TableExamples(table), rules, table_only=table_only)
    report = single_machine.prepare(preparation, output, 4_096)
    return report["pairs_in"], report["pairs_out"]


def pandas_and_pillow(table, frequent, table_only, output):
    """Filters with columns of pandas and a loop over the images, as a first version would."""
    import pandas

    rules = filters.Rules()
    frame = pandas.read_parquet(table)
    words = frame.caption.map(paper_rules.unigrams)
    lengths = words.map(len)
    keep = lengths.between(rules.min_words, rules.max_words)
    text = words.map(" ".join)
    pairs = pandas.DataFrame({"image": frame.image, "text": text}).drop_duplicates()
    keep &= text.map(pairs.text.value_counts()) <= rules.max_images_per_caption
    keep &= frame.image.map(pairs.image.value_counts()) <= rules.max_captions_per_image
    ngrams = words.map(paper_rules.ngrams).explode().dropna()
    counts = ngrams.value_counts()
    histogram = dict(collections.Counter(counts.to_list()))
    if (cutoff := filters.cutoff(histogram, frequent)) is not None:
        ties = sorted(counts.index[counts == cutoff.count], key=filters.tie_break)
        rare = set(counts.index[counts < cutoff.count]) | set(ties[cutoff.room :])
        keep &= ~ngrams.isin(rare).groupby(level=0).any().reindex(frame.index, fill_value=False)
    kept = frame[keep]
    kept = kept.sample(frac=1, random_state=0)
    if table_only:
        kept.to_json(f"{output}-kept.jsonl", orient="records", lines=True)
        return len(frame), len(kept)
    folder = Path(table).parent
    with ShardWriter(output, 4_096) as writer:
        for number, (image, caption) in enumerate(zip(kept.image, kept.caption, strict=True)):
            data = (folder / image).read_bytes()
            with Image.open(io.BytesIO(data)) as picture:
                if filters.broken_size_rule(*picture.size, rules) is None:
                    picture.load()
                    record = records.make_record(data, caption, f"{number:09d}", image_id=image)
                    writer.write(record)
    return len(frame), writer.count


def run_case(engine, **options):
    """Prints pairs in and out, wall-clock seconds, core seconds and peak memory."""
    start = time.perf_counter()
    before = time.process_time()
    pairs_in, pairs_out = {"ours": ours, "pandas": pandas_and_pillow}[engine](**options)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {"in": pairs_in, "out": pairs_out, "seconds": seconds}
    result |= {"cpu": usage.ru_utime + usage.ru_stime - before, "peak_mib": usage.ru_maxrss >> 10}
    print(json.dumps(result))


def main():
    """Makes the data, runs the cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="number of rows in the table without images"
    )
    parser.add_argument(
        "--images", type=int, default=4_000, help="number of images to filter and pack"
    )
    parser.add_argument("--case", help="run one case, given as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        run_case(**json.loads(arguments.case))
        return
    print(f"{measure.machine()}\n")
    heads = ("pairs in", "pairs out", "s", "core s", "pairs/s", "ratio", "peak MiB")
    print(" " * 25 + "".join(f"{head:>11}" for head in heads))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        text, pairs = folder / "text.parquet", folder / "pairs.parquet"
        write_table(text, arguments.rows, lambda index: f"https://host/{index}.jpg")
        write_table(pairs, arguments.images, lambda index: f"{index}.jpg")
        write_photographs(folder, arguments.images)
        for name, table, share, table_only, aim in (
            ("alt-texts alone", text, 3, True, 2.5),
            ("filter and pack", pairs, 12, False, 1.5),
        ):
            # With this number of frequent n-grams, about half of the captions have no other
            # n-grams.
            rows = arguments.rows if table_only else arguments.images
            case = {"table": str(table), "frequent": share * rows, "table_only": table_only}
            peer = None
            for engine in ("pandas", "ours"):
                output = str(folder / f"{engine}-{table.stem}")
                result = measure.in_child(__file__, engine=engine, output=output, **case)
                rate = result["in"] / result["seconds"]
                peer = peer or {**result, "rate": rate}
                if result["out"] != peer["out"]:
                    sys.exit(f"{name}: {engine} keeps {result['out']} pairs, not {peer['out']}")
                numbers = (
                    f"{result['in']:,}",
                    f"{result['out']:,}",
                    f"{result['seconds']:.1f}",
                    f"{result['cpu']:.1f}",
                    f"{rate:,.0f}",
                    f"{rate / peer['rate']:.2f}",
                    f"{result['peak_mib']:,}",
                )
                row = "".join(f"{number:>11}" for number in numbers)
                print(f"{name:17}{engine:>8}{row}", flush=True)
            measure.ratio(
                f"{name}: pairs/s of pandas and Pillow, one thread", rate / peer["rate"], aim
            )
            measure.ratio(f"{name}: core seconds of pandas and Pillow", peer["cpu"] / result["cpu"])


if __name__ == "__main__":
    main()
