"""Tests tables of four formats, and tar files in the format of img2dataset."""

import csv
import gzip
import io
import json
import tarfile

import materials
from harness import Family
from mutations import choose, damaged, damaged_json, odd_text, rows_of

from align_keras.data.examples import opening
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.table_columns import check_columns
from align_keras.data.preparation import preparing
from align_keras.errors import InputError


def outcome_of(read):
    """Returns ``refused`` for an error, ``skipped`` for examples with faults, or ``sound``."""
    try:
        faults = read()
    except (InputError, OSError) as error:
        text = str(error)
        assert text and "\n" not in text, f"not one line: {text!r}"
        return "refused"
    return "skipped" if faults else "sound"


def faults_of(examples):
    """Counts the examples without a usable caption or image; each must have a one-line reason."""
    faults = 0
    for example in examples:
        if example.fault:
            assert "\n" not in example.fault, example.fault
            faults += 1
            continue
        assert all(isinstance(name, str) for name in (example.image_id, example.key))
        try:
            assert isinstance(example.read_image(), bytes)
        except (InputError, OSError, ValueError) as error:
            assert str(error)
            faults += 1
    return faults


class Tables(Family):
    """Tables with damaged bytes or values, opened for packing, evaluation and search."""

    share, batch = 0.04, 50

    def __init__(self, ending):
        self.ending, self.name = ending, f"tables: {ending[1:].upper()}"

    def prepare(self, folder):
        self.folder, self.photos = folder, materials.photos(folder.parent)

    def make_case(self, rng):
        rows = rows_of(rng, int(rng.integers(1, 12)))
        data = getattr(self, f"write_{self.ending[1:]}")(rows)
        data = damaged(data, rng, sound=0.4)
        return (
            gzip.compress(data, mtime=0)
            if self.ending != ".parquet" and rng.uniform() < 0.1
            else data
        )

    def write_jsonl(self, rows):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    def write_csv(self, rows, **options):
        text = io.StringIO()
        writer = csv.writer(text, **options)
        writer.writerow(["image", "caption"])
        for row in rows:
            writer.writerow([row["image"], row["caption"]])
        return text.getvalue().encode("utf-8", "replace")

    def write_tsv(self, rows):
        lines = [f"{row['image']}\t{row['caption']}\n" for row in rows]
        return ("image\tcaption\n" + "".join(lines)).encode("utf-8", "replace")

    def write_parquet(self, rows):
        import pyarrow
        import pyarrow.parquet

        columns = {
            name: [str(row[name]).encode("utf-8", "replace").decode() for row in rows]
            for name in ("image", "caption")
        }
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
        return buffer.getvalue()

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, data):
        is_packed = data[:2] == b"\x1f\x8b" and self.ending != ".parquet"
        table = self.folder / f"table{self.ending}{'.gz' if is_packed else ''}"
        table.write_bytes(data)

        def pack():
            check_columns(str(table), Columns(), ("image", "captions"))
            source = preparing.open_pairs(str(table), str(self.photos))
            return faults_of(e for part in source.parts for e in source.read(part))

        outcome = outcome_of(pack)
        # Evaluation refuses examples that packing leaves out; it must not accept what packing
        # refuses.
        evaluated = outcome_of(
            lambda: faults_of(opening.open_examples(str(table), images=str(self.photos)))
        )
        assert evaluated == "refused" or outcome != "refused" or self.is_empty(table)
        return outcome

    def is_empty(self, table):
        """Returns whether the table has no captions; it may then still be a table of images."""
        return True


class Tars(Family):
    """Tar files with damaged bytes, odd names and headers, or broken JSON of a sample."""

    name, share, batch = "tars", 0.04, 50

    def prepare(self, folder):
        self.folder = folder

    def make_case(self, rng):
        buffer = io.BytesIO()
        kind = choose(rng, (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for number in range(5):
                fields = json.dumps({"key": str(number), "caption": f"picture {number}"})
                members = {
                    "jpg": materials.picture("JPEG", number),
                    "txt": f"picture number {number}".encode(),
                    "json": damaged_json(fields, rng, sound=0.8),
                }
                for extension, data in members.items():
                    self.add(archive, f"{number:05}.{extension}", data, rng)
        data = damaged(buffer.getvalue(), rng, sound=0.4)
        return gzip.compress(data, mtime=0) if rng.uniform() < 0.1 else data

    def add(self, archive, name, data, rng):
        """Adds a member, which is rarely an odd one."""
        if rng.uniform() < 0.05:
            name = choose(rng, ("../" + name, "/" + name, "a/" * 40 + name, "", odd_text(rng)[:50]))
        member = tarfile.TarInfo(name)
        member.size = len(data)
        if rng.uniform() < 0.03:
            member.type = choose(rng, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE))
            member.linkname, member.size = "/etc/passwd", 0
        try:
            archive.addfile(member, io.BytesIO(data))
        except ValueError:  # the format cannot store such a name
            archive.addfile(tarfile.TarInfo("other.txt"))

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, data):
        path = self.folder / ("00000.tgz" if data[:2] == b"\x1f\x8b" else "00000.tar")
        for old in self.folder.glob("00000.*"):
            old.unlink()
        path.write_bytes(data)

        def read():
            source = opening.open_downloads(str(path))
            return faults_of(e for part in source.parts for e in source.read(part))

        return outcome_of(read)


FAMILIES = (*map(Tables, (".jsonl", ".csv", ".tsv", ".parquet")), Tars())
