"""Packs a folder of images and a table of captions into shards for ``pretrain.py``.

    python recipes/prepare_data.py --captions=DIR/captions.jsonl --output=SHARDS/train
    python recipes/prepare_data.py --captions=all.csv --images=DIR --select split=val ...

Every pair that is left out is counted and listed with its reason.
"""

import dataclasses
import json
import random
import sys
from pathlib import Path

from quiet_tensorflow import load_quietly

load_quietly()

import tqdm
import tyro

from align_keras.data import packing, records


@dataclasses.dataclass(frozen=True)
class PackSettings:
    """Packs a folder of images and a table of captions into TFRecord shards."""

    captions: str
    """Table with one row an image: .jsonl, .csv, .tsv or .parquet."""
    output: str
    """Path and start of the shards' names: DIR/train gives DIR/train-00000.tfrecord."""
    images: str = ""
    """Folder of the images. Empty: the table's own folder."""
    image_column: str = "image"
    """Column with an image's path, relative to the folder."""
    archive_column: str = "archive"
    """Column with the name of a zip in the folder that holds the image; may be absent."""
    caption_column: str = ""
    """Column with the caption, or a list of captions. Empty: the first there is of captions,
    caption, txt and text."""
    select: tuple[str, ...] = ()
    """Keep only the rows with these values, as in: --select split=train."""
    carry: tuple[str, ...] = ()
    """Columns to copy into the records, as COLUMN or FIELD=COLUMN: class_name=type copies type
    as class_name, which zero-shot evaluation reads."""
    shard_size: int = 4_096
    """Records a shard."""
    seed: int = 0
    """Decides the order of the records."""


def main(settings):
    """Packs, writes the list of what was left out, and reports."""
    # Shards alone: what a packing without any pair has listed is no obstacle to the mended one.
    output = Path(settings.output)
    existing = sorted(output.parent.glob(output.name + "-*.tfrecord"))
    if existing:
        raise ValueError(f"--output: {existing[0]} is there already; remove it or choose another")
    if settings.shard_size < 1:
        raise ValueError(f"--shard-size: must be at least 1, not {settings.shard_size}")
    rows = [
        (where, row)
        for where, row in packing.read_table(settings.captions)
        if selected(row, settings.select)
    ]
    folder = packing.ImageFolder(settings.images or Path(settings.captions).parent)
    if not rows:
        raise ValueError(f"--captions: no row of {settings.captions} is selected")
    for column in packing.carried_columns(settings.carry).values():
        if all(row is None or row.get(column) is None for _, row in rows):
            raise ValueError(f"--carry: no row of {settings.captions} has a column {column}")
    # The table's order is rarely random; the shuffle buffer of training is small beside it.
    random.Random(settings.seed).shuffle(rows)
    with records.ShardWriter(settings.output, settings.shard_size) as writer:
        left_out = packing.pack(
            tqdm.tqdm(rows, unit="row", mininterval=0.5),
            folder,
            writer,
            image_column=settings.image_column,
            archive_column=settings.archive_column,
            caption_column=settings.caption_column or None,
            carry=settings.carry,
        )
    print(f"{writer.count:,} pairs in {len(writer.shards)} shards: {settings.output}-*.tfrecord")
    for reason, count in packing.count_reasons(left_out):
        print(f"left out {count:,}: {reason}")
    report = Path(f"{settings.output}-left_out.jsonl")
    report.unlink(missing_ok=True)
    if left_out:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("".join(json.dumps(pair) + "\n" for pair in left_out), encoding="utf-8")
        print(f"each one is listed in {report}")
    if not writer.count:
        raise ValueError(f"--captions: no pair of {settings.captions} could be packed")


def selected(row, conditions):
    """Whether a row has every ``column=value``; a row that is no object stays, to be counted."""
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals:
            raise ValueError(f"--select: {condition!r} must be COLUMN=VALUE")
        if row is not None and str(row.get(column)) != value:
            return False
    return True


if __name__ == "__main__":
    try:
        main(tyro.cli(PackSettings, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("prepare_data.py: interrupted; remove the shards of --output before packing again")
