"""Tests damaged records with correct checksums, and shards of any bytes, in the whole pipeline."""

import struct
from pathlib import Path

import google_crc32c
import materials
import numpy as np
from harness import Family
from mutations import choose, damaged, odd_text

from align_keras.data import inspection, pipeline, records


def framed(data):
    """Returns a record in the format of TFRecord files, with its checksums."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


class Records(Family):
    """Serialised examples; protobuf or later code refuses many of them."""

    name, share, batch = "records", 0.17, 127

    def prepare(self, folder):
        self.shard = str(folder / "records.tfrecord")
        preprocessor = materials.model(folder.parent).preprocessor
        self.sound = records.make_record(materials.picture("JPEG", 0), "a sound pair", "0")
        # The file is read again for every batch, but the graph is traced only once. A sound record
        # is always among the records.
        counts = {self.shard: self.batch + 1}
        self.evaluation = pipeline.evaluation_dataset(counts, preprocessor, self.batch + 1)
        self.training = pipeline.training_dataset(counts, preprocessor, self.batch + 1)

    def make_case(self, rng):
        seed = int(rng.integers(1 << 30))
        fields = {"jpg": materials.picture("JPEG", seed), "txt": "a small picture", "key": "7"}
        fields |= {"image_id": choose(rng, ("a", 7, 7.5)), "class_name": "ring"}
        if rng.uniform() < 0.3:
            name = choose(rng, list(fields))
            text = odd_text(rng).encode("utf-8", "replace")
            fields[name] = choose(rng, (b"", 3, 0.5, b"\xff\xfe", text))
        if rng.uniform() < 0.2:
            fields["jpg"] = damaged(fields["jpg"], rng) if isinstance(fields["jpg"], bytes) else b""
        return damaged(records.make_record(**fields), rng, sound=0.3)

    def run(self, cases):
        padding = [self.sound] * (self.batch + 1 - len(cases))
        Path(self.shard).write_bytes(b"".join(map(framed, [*cases, *padding])))
        [batch] = self.evaluation
        # Records that do not decode leave blanks at the end of their part of the batch.
        valid = np.isin(np.arange(self.batch + 1), batch["positions"][batch["valid"]])
        assert valid[len(cases) :].all(), "a sound record is lost"
        lost = next(iter(self.training))["lost"].numpy() > 0
        # Training decodes only a part of a JPEG and may find no fault where evaluation finds one.
        counted, missing = int(lost.sum()), int((~valid).sum())
        least = sum(not self.is_pair(case) for case in cases)
        assert least <= counted <= missing, f"{counted} counted, not {least} .. {missing}"
        found = inspection.Inspection(None)
        found.read_shard(self.shard, self.batch + 1)
        usable = found.report()["usable"]
        assert usable == valid.sum(), f"inspection finds {usable} usable, evaluation {valid.sum()}"
        return np.where(valid[: len(cases)], "sound", "skipped").tolist()

    def is_pair(self, case):
        """Returns whether a record is an example with an image and a caption."""
        try:
            fields = records.parse_pair(case)
        except ValueError:
            return False
        return isinstance(fields.get("jpg"), bytes) and isinstance(fields.get("txt"), bytes)


class Shards(Family):
    """Shards of any bytes; reading, counting and indexing must find the same number of records."""

    name, share, batch = "shards", 0.05, 50

    def prepare(self, folder):
        self.shard = str(folder / "shard.tfrecord")
        self.frames = [
            framed(records.make_record(materials.picture("JPEG", n), f"pair number {n}", str(n)))
            for n in range(5)
        ]

    def make_case(self, rng):
        return damaged(b"".join(self.frames), rng)

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, data):
        Path(self.shard).write_bytes(data)
        found = list(records.read_frames(self.shard))
        count = records.count_records(self.shard)
        assert count >= len(found), f"{count} counted, {len(found)} read"
        read = list(records.read_records(self.shard, count))
        assert len(read) == count
        sound = sum(framed(record) in self.frames for record in read if record)
        assert sound == sum(bool(record) for record in read), "another record than was written"
        list(records.read_captions([self.shard], 10))
        if not count:
            return "refused"
        return "sound" if all(read) and data == b"".join(self.frames) else "skipped"


FAMILIES = (Records(), Shards())
