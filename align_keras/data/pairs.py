"""What training and evaluation take from a record: an image, a caption and the image's id.

Protobuf reads the record in Python, and the pipeline gets bytes that need no parser.
``tf.io.parse_single_example`` in its place ends the process (SIGSEGV) on some malformed records
whose checksums are right; whatever reads shards with it must have shown each record to protobuf
before.
"""

from typing import Any, NamedTuple

from align_keras.data import records


class Pair(NamedTuple):
    """The fields of a record that training reads, as bytes; ``b""`` for each that is absent."""

    image: bytes = b""
    caption: bytes = b""
    image_id: bytes = b""


def read_pair(record: bytes) -> Pair:
    """The pair of a serialised record; an empty one if it is no ``tf.train.Example``.

    Of a field with several values the first counts, as in ``records.parse_pair``.
    """
    try:
        features = records.parse_example(record).features.feature
    except ValueError:
        return Pair()
    image, caption = (_first(features[name].bytes_list.value) for name in ("jpg", "txt"))
    return Pair(image, caption, _as_id(features["image_id"]))


def image_id_of(record: bytes) -> bytes:
    """The ``image_id`` of a serialised record as bytes, whether string or whole number.

    ``b""`` if it is absent, white space, a fraction or unreadable: as ``examples.example.as_id``.
    """
    return read_pair(record).image_id


def _first(values: Any) -> bytes:
    return values[0] if values else b""


def _as_id(feature: Any) -> bytes:
    """An id may be a string in one record and a number in the next."""
    for value in feature.bytes_list.value[:1]:
        return value if value.decode("utf-8", "replace").strip() else b""
    for value in feature.int64_list.value[:1]:
        return b"%d" % value
    for value in feature.float_list.value[:1]:
        return b"%d" % value if value.is_integer() and abs(value) < 1 << 24 else b""
    return b""
