"""Compares the reader in TensorFlow ops with that in Python, on intact and damaged shards."""

import gzip
import pathlib
import struct
import subprocess
import sys

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from malformed import mutated

from align_keras.data import pairs, pipeline, records, shard_order
from align_keras.data.block_reader import block_reader
from align_keras.data.shard_writer import ShardWriter
from align_keras.preprocessing.tokenizer import write_vocabulary

SEED = 7


def write_shard(folder, number=300):
    rng = np.random.default_rng(SEED)
    with ShardWriter(str(folder / "s"), number) as writer:
        for key in range(number):
            image = rng.bytes(int(rng.integers(1, 90)))
            writer.write(records.make_record(image, f"caption {key}", str(key)))
    return writer.shards[0]


def read_natively(counts):
    blocks = tf.data.Dataset.from_tensor_slices(shard_order.every_block(counts))
    return [record for record, _ in blocks.flat_map(block_reader(counts)).as_numpy_iterator()]


def read_in_python(path, counts):
    return list(records.read_records(path, counts[path]))


@pytest.mark.parametrize(
    "case", ["sound", "flipped", "header", "cut", "longer", "hostile", "beyond 64 bits"]
)
def test_a_corrupt_record_costs_itself_alone_as_in_python(case, tmp_path):
    path = write_shard(tmp_path)
    frames = list(records.read_frames(path))
    begins = np.cumsum([0] + [len(frame) + 16 for frame in frames])
    data = bytearray(pathlib.Path(path).read_bytes())
    if case == "flipped":  # adjacent records, the first and last of blocks, and one more
        for number in (0, 5, 6, 127, 128, 299):
            data[begins[number] + 14] ^= 1
    elif case == "header":
        data[begins[200] + 3] ^= 1
    elif case == "cut":
        del data[begins[200] + 9 :]
    elif case == "longer":
        data += data[: begins[3]]
    elif case in ("hostile", "beyond 64 bits"):
        # A length that exceeds any memory, with a correct checksum.
        length = struct.pack("<Q", (1 << 40) if case == "hostile" else (1 << 63) - 108)
        crc = google_crc32c.value(length)
        masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
        data[begins[299] : begins[299] + 12] = length + struct.pack("<I", masked)
    pathlib.Path(path).write_bytes(data)
    counts = pipeline.shard_counts([path])
    expected = read_in_python(path, counts)
    assert read_natively(counts) == expected
    lost = {"sound": 0, "flipped": 6, "header": 100, "cut": 100, "longer": 0}.get(case, 1)
    assert expected.count(b"") == lost
    # Starts inside a block, before the corrupt records.
    block = shard_order.Block(*(tf.constant(n, tf.int64) for n in (0, 0, 128, 3, 60)))
    part = [record for record, _ in block_reader(counts)(block).as_numpy_iterator()]
    assert part == expected[3:63]


def test_in_a_compressed_shard_all_behind_a_corrupt_record_is_lost(tmp_path):
    path = write_shard(tmp_path, 20)
    data = bytearray(pathlib.Path(path).read_bytes())
    whole = list(records.read_frames(path))
    data[sum(len(frame) + 16 for frame in whole[:7]) + 14] ^= 1
    compressed = str(tmp_path / "c.tfrecord.gz")
    with gzip.open(compressed, "wb") as file:
        file.write(data)
    counts = pipeline.shard_counts([compressed])
    assert read_natively(counts) == [*whole[:7], *[b""] * 13]


def test_flips_anywhere_in_a_shard_cost_what_they_cost_in_python(tmp_path):
    path = write_shard(tmp_path, 20)
    whole = pathlib.Path(path).read_bytes()
    rng = np.random.default_rng(SEED)
    for _ in range(12):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] ^= 1 << int(rng.integers(8))
        pathlib.Path(path).write_bytes(data)
        counts = pipeline.shard_counts([path])
        assert read_natively(counts) == read_in_python(path, counts)


def test_parsing_in_tensorflow_gives_what_protobuf_gives(tmp_path):
    rng = np.random.default_rng(SEED)
    photograph = b"\xff\xd8\xff\xe0" + rng.bytes(60)
    sound = [
        records.make_record(photograph, "a photo", "1", image_id=image_id, width=3)
        for image_id in ("abc", " \u3000\x1c\x85", b"\xff", 77, -1, 7.0, 1.5, float(1 << 25))
    ]
    sound += [records.make_record(3, "a photo", "2"), records.make_record(b"", 2.5, "3"), b""]
    assert [pairs.Pair(*own) for own in zip(*parsed(sound), strict=True)] == list(
        map(pairs.read_pair, sound)
    )
    refused = 0
    for record in (mutated(sound[place % 8], rng) for place in range(400)):
        expected = pairs.read_pair(record)
        try:
            found = pairs.Pair(*(own[0] for own in parsed([record])))
        except tf.errors.OpError:
            found, refused = pairs.Pair(), refused + 1
        assert found == expected, record
    assert refused > 50


def parsed(serialized):
    return [own.numpy().tolist() for own in pairs.parse_pairs(tf.constant(serialized))]


SERVER = """
import sys
import tensorflow as tf
import tensorflow_text
server = tf.distribute.Server({"worker": ["localhost:0"]}, job_name="worker", task_index=0)
print(server.target, flush=True)
sys.stdin.read()
"""
CLIENT = """
import sys
import tensorflow as tf
from align_keras import AlignPreprocessor
from align_keras.data import pipeline
address, vocabulary, *shards = sys.argv[1:]
tf.config.experimental_connect_to_host(address, job_name="worker")
with tf.device("/job:worker/replica:0/task:0/device:CPU:0"):
    dataset = pipeline.training_dataset(
        pipeline.shard_counts(shards), AlignPreprocessor(vocabulary, 16, 20, 12), 20
    )
    ids = next(iter(dataset))["image_ids"]
assert "job:worker" in ids.device, ids.device
print(*ids.numpy())
"""


def test_another_machine_reads_by_itself(scene_shards, preprocessor, tmp_path):
    """A server in another process simulates a host of a TPU slice."""
    counts = pipeline.shard_counts(scene_shards[0])
    dataset = pipeline.training_dataset(counts, preprocessor, 20)
    assert not python_ops(dataset)
    (expected,) = dataset.take(1)
    write_vocabulary(preprocessor.vocabulary, str(tmp_path / "vocab.txt"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c"]
    with subprocess.Popen([*command, SERVER], stdin=subprocess.PIPE, **pipes) as server:
        address = server.stdout.readline().strip().removeprefix("grpc://")
        arguments = [address, str(tmp_path / "vocab.txt"), *scene_shards[0]]
        client = subprocess.run([*command, CLIENT, *arguments], **pipes)
        server.communicate()
    assert client.returncode == 0, client.stderr[-2000:]
    assert list(map(int, client.stdout.split())) == expected["image_ids"].numpy().tolist()


def python_ops(dataset):
    """The ops of a data set's graph that call Python."""
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    nodes = [*graph.node, *(node for own in graph.library.function for node in own.node_def)]
    assert any(node.op == "TFRecordDatasetV2" for node in nodes)
    return {node.op for node in nodes if "PyFunc" in node.op or node.op == "GeneratorDataset"}
