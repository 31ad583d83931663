"""A ``tf.data`` pipeline from labelled images of any source to batches."""

from collections.abc import Callable, Iterator

import tensorflow as tf

from align_keras.data import batches
from align_keras.preprocessing.tracing import as_written


def training_dataset(
    read: Callable[[int], Iterator[tuple[bytes, int, str]]],
    epoch_length: int,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    image_size: int,
    batch_size: int,
    *,
    seed: int = 0,
    start_batch: int = 0,
    buffer: int = 4096,
    skipped: batches.SkippedRecords | None = None,
) -> tf.data.Dataset:
    """Endless batches of augmented images and their classes.

    Memory holds only ``buffer`` encoded images and the current batches. A batch may contain images
    of two epochs.

    Args:
        read: yields encoded images, classes and files in the order of an epoch, given the epoch's
            number. An image that cannot be read is an empty string.
        epoch_length: number of images per epoch.
        augment: turns an encoded image and two integers, which seed all randomness, into a uint8
            image of shape ``(image_size, image_size, 3)``, with TensorFlow ops.
        image_size: side of the images, in pixels.
        batch_size: images per batch.
        seed: decides the order in the buffer, and the crops.
        start_batch: the first batch to return, as if all earlier ones had been taken.
        buffer: size of the shuffle buffer, in encoded images.
        skipped: counts the images that do not decode. Other images of the batch replace them.

    Returns:
        A ``tf.data.Dataset`` of images, uint8, ``(batch, size, size, 3)``, and classes, int32,
        ``(batch,)``.
    """

    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_generator(
            lambda epoch: read(int(epoch)),
            args=(epoch,),
            output_signature=tuple(
                tf.TensorSpec([], kind) for kind in (tf.string, tf.int32, tf.string)
            ),
        )

    def decode(position: tf.Tensor, record: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        encoded, label, _ = record
        image = augment(encoded, tf.stack([tf.constant(seed, tf.int64), position]))
        image = tf.ensure_shape(image, [image_size, image_size, 3])
        return {"images": image, "labels": label, "valid": True}

    blank = {
        "images": tf.zeros([image_size, image_size, 3], tf.uint8),
        "labels": tf.constant(0, tf.int32),
        "valid": False,
    }
    counted = batches.SkippedRecords() if skipped is None else skipped
    dataset = batches.endless(
        epoch_records,
        lambda position: divmod(position, epoch_length),
        start_batch * batch_size,
        seed,
        buffer,
    )
    dataset = batches.decoded(dataset, decode, blank, batch_size).enumerate(start_batch)

    @as_written
    def finish(number: tf.Tensor, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        batch = batches.fill_gaps(batch)
        lost = batch["lost"]

        def count() -> tf.Operation:
            return tf.group(tf.numpy_function(counted.add, [number, lost], [], stateful=True))

        done = tf.cond(tf.reduce_any(lost != ""), count, tf.no_op)
        with tf.control_dependencies([done]):
            return tf.identity(batch["images"]), batch["labels"]

    return batches.with_options(dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE))
