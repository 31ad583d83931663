"""Reads image, caption and image id from a record, for training and evaluation.

``parse_pairs`` reads many records with TensorFlow ops, and ``read_pair`` reads one record in
Python. Both reject the records that protobuf rejects. ``tf.io.parse_example`` cannot be used: it
crashes the process (SIGSEGV) on some malformed records with correct checksums.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from align_keras.data import records

# The white space that `str.strip` removes, in RE2's syntax.
_WHITE_SPACE = r"[\s\x0b\x1c-\x1f\x{85}\pZ]*"


class Pair(NamedTuple):
    """The fields of a record that training reads, as bytes; ``b""`` for an absent field."""

    image: bytes = b""
    caption: bytes = b""
    image_id: bytes = b""


def read_pair(record: bytes) -> Pair:
    """The pair of a serialised record; an empty pair if it is not a ``tf.train.Example``.

    If a field has several values, the first is used, as in ``records.parse_pair``.
    """
    try:
        features = records.parse_example(record).features.feature
    except ValueError:
        return Pair()
    image, caption = (_first(features[name].bytes_list.value) for name in ("jpg", "txt"))
    return Pair(image, caption, _as_id(features["image_id"]))


def image_id_of(record: bytes) -> bytes:
    """The ``image_id`` of a serialised record as bytes, whether it is a string or an integer.

    ``b""`` if it is absent, white space, a fraction or unreadable, as in
    ``examples.example.as_id``.
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


# Traced once per process. It has about a hundred ops, and every data set uses it.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def parse_pairs(serialized: tf.Tensor) -> Pair:
    """Reads the pairs of serialised records with TensorFlow ops, like ``read_pair`` in Python.

    Reads protobuf's wire format level by level, with one op per level for all records.

    Args:
        serialized: records, strings, ``(batch,)``.

    Returns:
        A ``Pair`` of strings, ``(batch,)``.

    Raises:
        tf.errors.OpError: if a record is not a ``tf.train.Example``.
    """
    (features,) = _decode(serialized, "tensorflow.Example", features=tf.string)
    (entries,) = _decode(tf.squeeze(features, 1), "tensorflow.Features", feature=tf.string)
    names, values = _decode(
        entries, "tensorflow.Features.FeatureEntry", key=tf.string, value=tf.string
    )
    names = tf.strings.unicode_transcode(tf.squeeze(names, 2), "UTF-8", "UTF-8", errors="strict")
    kinds = {"bytes_list": tf.string, "int64_list": tf.string, "float_list": tf.string}
    lists = _decode(tf.squeeze(values, 2), "tensorflow.Feature", **kinds)
    # This also checks features that nothing uses, since protobuf rejects a record if any is
    # malformed.
    strings, integers, floats = (
        _first_values(tf.squeeze(own, 2), message_type, dtype)
        for own, message_type, dtype in zip(
            lists,
            ("tensorflow.BytesList", "tensorflow.Int64List", "tensorflow.FloatList"),
            (tf.string, tf.int64, tf.float32),
            strict=True,
        )
    )
    image, _ = _of_feature(names, "jpg", *strings)
    caption, _ = _of_feature(names, "txt", *strings)
    ids = (_of_feature(names, "image_id", *values) for values in (strings, integers, floats))
    return Pair(image, caption, _as_ids(*ids))


def _decode(messages: tf.Tensor, message_type: str, **fields: tf.DType) -> list[tf.Tensor]:
    """Fields of messages, each of shape ``(*messages.shape, values)``."""
    return tf.io.decode_proto(messages, message_type, list(fields), list(fields.values())).values


def _first_values(
    lists: tf.Tensor, message_type: str, dtype: tf.DType
) -> tuple[tf.Tensor, tf.Tensor]:
    """The first value of each list, and whether there is one; both ``(batch, features)``."""
    sizes, (values,) = tf.io.decode_proto(lists, message_type, ["value"], [dtype])
    # Adds a blank value, for the case that every list is empty.
    values = tf.concat([values, tf.fill(tf.shape(sizes), _blank(dtype))], axis=2)
    return values[:, :, 0], sizes[:, :, 0] > 0


def _of_feature(
    names: tf.Tensor, name: str, values: tf.Tensor, has_value: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Picks a feature by name from the results of ``_first_values``; shape ``(batch,)``.

    If a name occurs several times, the last one is used, as in protobuf.
    """
    place = tf.reduce_max(tf.where(names == name, tf.range(1, tf.shape(names)[1] + 1), 0), axis=1)
    is_there = place > 0
    # Adds a blank value, for the case that no record has a feature.
    values = tf.pad(values, [[0, 0], [0, 1]], constant_values=_blank(values.dtype))
    has_value = tf.pad(has_value, [[0, 0], [0, 1]])
    value, has_value = (
        tf.gather(own, tf.maximum(place - 1, 0), batch_dims=1) for own in (values, has_value)
    )
    return tf.where(is_there, value, _blank(value.dtype)), is_there & has_value


def _blank(dtype: tf.DType) -> tf.Tensor:
    return tf.constant("" if dtype == tf.string else 0, dtype)


def _as_ids(*kinds: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Like ``_as_id``, for tensors of strings, integers and floats."""
    (text, is_text), (integer, is_integer), (number, is_number) = kinds
    is_whole = is_number & (tf.floor(number) == number) & (tf.abs(number) < 1 << 24)
    integer = tf.where(is_integer, integer, tf.cast(tf.where(is_whole, number, 0.0), tf.int64))
    as_text = tf.where(is_integer | is_whole, tf.strings.as_string(integer), "")
    has_letters = ~tf.strings.regex_full_match(text, _WHITE_SPACE)
    return tf.where(is_text, tf.where(has_letters, text, ""), as_text)
