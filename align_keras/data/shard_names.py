"""Names that shards have, for modules that load no TensorFlow."""

import re

#: Why a record cannot be read: its checksum is wrong or it is cut off, or protobuf refuses it.
CORRUPT, NO_EXAMPLE = "corrupt record", "not a tf.train.Example"


def stats_path(shard: str) -> str:
    """Where the statistics of a shard stand: ``00000.tfrecord.gz`` -> ``00000_stats.json``."""
    return re.sub(r"(\.tfrecords?)?(\.gz)?$", "", shard) + "_stats.json"
