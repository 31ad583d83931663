"""Decodes a batch of files; files that are not images do not make the others fail."""

import tensorflow as tf

from align_keras.preprocessing.preprocessor import AlignPreprocessor

# Each may hold a decoded image of ``faults.MAX_PIXELS``, which is 192 MiB.
_PARALLEL_IMAGES = 4


def decode_each(encoded: tf.Tensor, preprocessor: AlignPreprocessor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and crops a batch of image files. Files that do not decode give zeros.

    Args:
        encoded: the bytes of image files, strings, ``(batch,)``.
        preprocessor: an ``AlignPreprocessor``.

    Returns:
        ``(crops, valid)``: uint8, ``(batch, size, size, 3)``, with zeros for a file that did not
        decode or has more than ``faults.MAX_PIXELS`` pixels; and bool, ``(batch,)``, whether each
        file decoded.
    """
    count = tf.size(encoded, tf.int64)
    shape = [preprocessor.image_size, preprocessor.image_size, 3]
    # TensorFlow cannot catch an error inside a graph, but its data sets can.
    decoded = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
    decoded = decoded.map(
        lambda place, image: (place, preprocessor.decode_centre_crop(image)),
        num_parallel_calls=_PARALLEL_IMAGES,
        deterministic=False,
    ).ignore_errors()
    # One more row, so that there is a batch even if no file decodes.
    spare = tf.data.Dataset.from_tensors((count, tf.zeros(shape, tf.uint8)))
    places, crops = spare.concatenate(decoded).batch(count + 1).get_single_element()
    places = places[:, None]
    crops = tf.scatter_nd(places, crops, tf.stack([count + 1, *shape]))[:count]
    valid = tf.scatter_nd(places, tf.ones_like(places[:, 0]), [count + 1])[:count] > 0
    return tf.ensure_shape(crops, [None, *shape]), valid
