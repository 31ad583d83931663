"""Names of shards and of faults, for modules that do not import TensorFlow."""

import re

#: Why a record cannot be read: it has a wrong checksum or is truncated, or protobuf rejects it.
CORRUPT, NO_EXAMPLE = "corrupt record", "not a tf.train.Example"


def stats_path(shard: str) -> str:
    """Path of the statistics of a shard: ``00000.tfrecord.gz`` -> ``00000_stats.json``."""
    return re.sub(r"(\.tfrecords?)?(\.gz)?$", "", shard) + "_stats.json"
