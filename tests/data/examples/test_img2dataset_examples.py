"""The formats that img2dataset writes."""

import io
import json
import tarfile

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from align_keras.data import records
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.opening import open_downloads
from align_keras.data.preparation import filters
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.judging import Preparation
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError

META = {"url": "http://x/{}.jpg", "original_width": 640, "original_height": 480, "NSFW": "UNLIKELY"}


def jpeg(value):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def row_of(index):
    fields = {name: v.format(index) if isinstance(v, str) else v for name, v in META.items()}
    return {"key": f"{index:09d}", "caption": f"caption {index}", "status": "success", **fields}


def write_tar(folder):
    with tarfile.open(folder / "00000.tar", "w") as archive:
        for index in range(3):
            row = row_of(index)
            for extension, data in (
                ("jpg", jpeg(index)),
                ("txt", row["caption"].encode()),
                ("json", json.dumps(row).encode()),
            ):
                member = tarfile.TarInfo(f"./{row['key']}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_tfrecord(folder):
    with ShardWriter(str(folder / "x"), 10) as writer:
        for index in range(3):
            row = row_of(index)
            others = {name: value for name, value in row.items() if name not in ("key", "caption")}
            writer.write(records.make_record(jpeg(index), row["caption"], row["key"], **others))


def write_parquet(folder):
    rows = [{**row_of(index), "jpg": jpeg(index)} for index in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "00000.parquet")


def write_files(folder):
    rows = [row_of(index) for index in range(3)]
    rows.append({**row_of(3), "status": "failed_to_download"})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "00000.parquet")
    (folder / "00000").mkdir()
    for index in range(3):
        (folder / "00000" / f"{index:09d}.jpg").write_bytes(jpeg(index))


@pytest.mark.parametrize("write", [write_tar, write_tfrecord, write_parquet, write_files])
@pytest.mark.parametrize("pattern", ["", "/*0*"])
def test_every_format_of_img2dataset_reads_alike(write, pattern, tmp_path):
    write(tmp_path)
    if write is write_files and pattern:
        pattern = "/*.parquet"
    columns = Columns(unsafe="NSFW", carry=("class_name=original_width",))
    source = open_downloads(f"{tmp_path}{pattern}", columns)
    rows = [row for part in source.parts for row in source.read(part)]
    assert [row.image_id for row in rows[:3]] == [f"http://x/{index}.jpg" for index in range(3)]
    assert {row.size for row in rows} == {(640, 480)}
    assert {row.unsafe for row in rows} == {"UNLIKELY"}
    assert len({row.key for row in rows}) == len({row.place for row in rows}) == len(rows)
    assert rows[1].place.row == "record 1"
    assert rows[0].carried == {"class_name": 640}
    tally = Tally()
    preparation = Preparation(source, filters.NO_RULES)
    kept = [records.parse_pair(r) for p in source.parts for _, r in preparation.kept(p, (), tally)]
    assert [pair["jpg"] for pair in kept] == [jpeg(index) for index in range(3)]
    assert [pair["txt"] for pair in kept] == [f"caption {index}".encode() for index in range(3)]
    assert tally.reasons == ({"not downloaded": 1} if write is write_files else {})


def test_the_size_on_the_web_counts_where_it_is_named(tmp_path):
    write_tar(tmp_path)
    rules = filters.Rules(frequent_ngrams=None, min_words=None)
    tally = Tally()
    source = open_downloads(str(tmp_path))
    # The files have 12 x 8 pixels; the originals had 640 x 480.
    assert len(list(Preparation(source, rules).kept(source.parts[0], (), tally))) == 3


def test_corrupt_shards_cost_what_is_corrupt(tmp_path):
    write_tfrecord(tmp_path)
    path = tmp_path / "x-00000.tfrecord"
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    tally = Tally()
    source = open_downloads(f"{tmp_path}/x-*.tfrecord")
    assert len(list(Preparation(source, filters.NO_RULES).kept(source.parts[0], (), tally))) == 2
    assert tally.reasons == {"corrupt record": 1}
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 500)
    source = open_downloads(f"{tmp_path}/bad.tar")
    with pytest.raises(InputError, match="not readable as a tar file") as caught:
        list(source.read(source.parts[0]))
    assert caught.value.place.file == f"{tmp_path}/bad.tar"
