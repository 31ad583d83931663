"""For an intact file of another kind, the error names the kind instead of damage."""

import gzip
import io
import json
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from align_keras.data import checks, file_kinds, inspection, records
from align_keras.data.examples import open_examples
from align_keras.data.examples.opening import open_downloads
from align_keras.data.examples.tables import read_table
from align_keras.data.shard_writer import write_shard
from align_keras.errors import InputError

ROWS = [{"image": "0.jpg", "caption": "a ball"}]


def packed(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def tar_of(name, data):
    def write(buffer):
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

    return packed(write)


CSV = b"image,caption\n0.jpg,a ball\n"
JSONL = json.dumps(ROWS[0]).encode() + b"\n"
TAR = tar_of("0.txt", b"a ball")
ZIP = packed(lambda buffer: zipfile.ZipFile(buffer, "w").writestr("0.txt", "a ball"))
PARQUET = packed(
    lambda buffer: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), buffer)
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PACK = "pack it with recipes/prepare_data.py"


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("data", "kind", "remedy"),
    [
        (JSONL, "a table of JSON objects", PACK),
        (CSV, "a table or other text", PACK),
        (PARQUET, "Parquet", PACK),
        (ZIP, "a zip archive", "unpack it"),
        (TAR, "a tar archive", PACK),
        (gzip.compress(CSV), "compressed by gzip", "gunzip it"),
        (b"<!DOCTYPE html><html>", "HTML", ""),
        (POINTER, "a Git LFS pointer", "git lfs pull"),
    ],
)
def test_a_shard_that_is_another_file_is_named(data, kind, remedy, write):
    shard = write("x.shard", data)
    good = write("good.tfrecord", b"")
    write_shard(good, [records.make_record(b"jpeg", "a caption", "k")])
    for read in (lambda: checks.check_shards([good, shard]), lambda: list(open_examples(shard))):
        with pytest.raises(InputError, match=f"is {kind}") as caught:
            read()
        assert caught.value.place.file == shard
        assert remedy in caught.value.remedy
    found = inspection.Inspection()
    found.read_shard(shard, 10)
    (line,) = found.faults["no readable record in the shard"]["examples"]
    assert f"is {kind}" in line


@pytest.mark.parametrize(
    ("name", "data", "remedy"),
    [
        ("t.ndjson", JSONL, "give it the ending .jsonl"),
        ("t.txt", CSV, "give it the ending .csv"),
        ("t.json", json.dumps(ROWS).encode(), "write one object per line, with the ending .jsonl"),
        ("t.xlsx", ZIP, "unpack it, or save the table as CSV"),
    ],
)
def test_a_table_by_another_name_is_reported_the_ending(name, data, remedy, write):
    with pytest.raises(InputError, match="must end in .jsonl, .csv, .tsv or .parquet") as caught:
        list(read_table(write(name, data)))
    assert caught.value.remedy.startswith(remedy)
    if name != "t.json":
        with pytest.raises(InputError) as caught:
            open_examples(write(name, data))
        assert caught.value.remedy.startswith(remedy)


def test_a_compressed_shard_is_compressed(write):
    shard = write("x.tfrecord.gz", gzip.compress(b"")[:20])
    records.check_kind(shard)
    assert file_kinds.kind_of(b"nonsense") is None
    assert file_kinds.kind_of(b"") is None


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tgz", "0.tar"])
def test_a_compressed_tar_file_is_called_so(name, write):
    path = write(name, gzip.compress(TAR))
    for source in (open_downloads(path), open_examples(path)):
        with pytest.raises(InputError, match="is compressed by gzip, not a tar archive; gunzip it"):
            list(source.read(source.parts[0]))


def test_a_source_says_what_is_there_instead(write, tmp_path):
    with pytest.raises(InputError, match="; a table is given as captions"):
        open_downloads(write("t.jsonl", JSONL))
    write("z.zip", ZIP)
    with pytest.raises(InputError, match="; there is only t.jsonl, z.zip"):
        open_downloads(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "data", "problem", "remedy"),
    [
        ("t.csv", JSONL, "is a table of JSON objects, despite its ending .csv", ".jsonl"),
        ("t.jsonl", PARQUET, "is Parquet", "give it the ending .parquet"),
        ("t.parquet", CSV, "is a table or other text", "give it the ending .csv"),
        ("t.csv", ZIP, "is a zip archive or an Excel table", "save the table as CSV"),
        ("t.csv", gzip.compress(CSV), "is compressed by gzip", "gunzip it"),
        ("t.jsonl", json.dumps(ROWS * 2, indent=1).encode(), "is a JSON array", "jq -c"),
        ("t.csv", CSV.decode().encode("utf-16"), "is text in UTF-16", "iconv -f UTF-16"),
        ("t.tsv", CSV.decode().encode("utf-16-le"), "is text in UTF-16", "iconv -f UTF-16"),
        ("t.csv", POINTER, "is a Git LFS pointer", "git lfs pull"),
        ("t.csv.gz", gzip.compress(CSV)[:-4], "not readable", "write it again"),
    ],
)
def test_a_table_of_another_kind_is_named(name, data, problem, remedy, write):
    path = write(name, data)
    with pytest.raises(InputError, match=problem) as caught:
        list(read_table(path))
    assert caught.value.place.file == path
    assert remedy in caught.value.remedy
