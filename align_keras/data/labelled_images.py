"""A ``tf.data`` pipeline from labelled images to batches, whatever they are read from."""

import tensorflow as tf

# Autotuning would take half the memory of the machine (bytes).
_MEMORY_BUDGET = 2 << 30


def training_dataset(
    read, epoch_length, augment, image_size, batch_size, *, seed=0, start_batch=0, buffer=4096
):
    """Endless batches of augmented images and their classes.

    Nothing but ``buffer`` encoded images and the batches under way is in memory. A batch may hold
    images of two epochs.

    Args:
        read: called with the number of an epoch, which may decide their order, gives an iterator of
            encoded images and classes, bytes and integers.
        epoch_length: how many those are.
        augment: an encoded image and two integers, which decide all that is random, to float32
            ``(image_size, image_size, 3)``, in TensorFlow ops.
        image_size: pixels.
        batch_size: images a batch.
        seed: decides the order in the buffer and the crops.
        start_batch: the first batch to give, as if those before had been taken.
        buffer: encoded images among which the order is random.

    Returns:
        A ``tf.data.Dataset`` of images, float32, ``(batch, size, size, 3)``, and classes, int32,
        ``(batch,)``.
    """
    first_epoch, skip = divmod(start_batch * batch_size, epoch_length)

    def epoch_images(epoch):
        # Of this traced function alone: makes the order independent of the global seed, which
        # `shuffle` would mix in.
        tf.random.set_seed(1)
        dataset = tf.data.Dataset.from_generator(
            lambda epoch: read(int(epoch)),
            args=(epoch,),
            output_signature=(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)),
        )
        return dataset.shuffle(buffer, seed=seed + epoch, reshuffle_each_iteration=False)

    def decode(position, fields):
        encoded, label = fields
        image = augment(encoded, tf.stack([tf.constant(seed, tf.int64), position]))
        return tf.ensure_shape(image, [image_size, image_size, 3]), label

    dataset = tf.data.Dataset.range(first_epoch, 1 << 40).flat_map(epoch_images)
    dataset = dataset.skip(skip).enumerate(start_batch * batch_size)
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    options.autotune.ram_budget = _MEMORY_BUDGET
    # One generator reads for all replicas; it cannot be shared out by files.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return dataset.with_options(options)
