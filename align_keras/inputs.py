"""Raw images and captions, in whatever form they come, to batches of model inputs."""

import concurrent.futures
import os

import numpy as np
import tensorflow as tf

from align_keras.text_encoder import TEXT_INPUTS

MODEL_INPUTS = ("images", *TEXT_INPUTS)


def image_batches(images, preprocessor, batch_size):
    """Yields batches of model inputs from images.

    Args:
        images: one of

            * floats ``(count, size, size, 3)``: model inputs already;
            * integers ``(count, height, width, 3)``, 0 .. 255;
            * a list of paths, encoded images (bytes), PIL images or integer arrays
              ``(height, width, 3)``, in any mix, or a single path;
            * a ``tf.data.Dataset`` of any of these (strings being paths or encoded images), or
              of dicts with a field ``images``; batched or not.
        preprocessor: an ``AlignPreprocessor``, or None where all are floats.
        batch_size: images a batch; a batched dataset keeps its own.

    Yields:
        float32, ``(batch, size, size, 3)``.

    Raises:
        ValueError: if something is no image, with its name or place.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(images, tf.data.Dataset):
        for batch in prepare_dataset(images, preprocessor, batch_size, ("images",)):
            yield batch["images"] if isinstance(batch, dict) else batch
        return
    if isinstance(images, str | bytes | os.PathLike):
        images = [images]
    rank = len(images.shape) if hasattr(images, "shape") else None
    if rank == 4 and not _is_integer(images):
        for start in range(0, len(images), batch_size):
            yield tf.cast(images[start : start + batch_size], tf.float32)
        return
    _check_preprocessor(preprocessor)
    if not hasattr(images, "__len__"):
        raise ValueError(f"not images, but {images!r}")
    if rank == 3:
        raise ValueError("images: a single array; give a batch of them, as in images[None]")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            places = range(start, start + len(chunk))
            yield tf.stack(
                list(pool.map(_prepare_image, chunk, places, [preprocessor] * len(chunk)))
            )


def _prepare_image(image, place, preprocessor):
    """One image of a list to ``(size, size, 3)``."""
    name = f"image {place}"
    if isinstance(image, str | os.PathLike):
        name = os.fspath(image)
        if not tf.io.gfile.exists(name) or tf.io.gfile.isdir(name):
            raise FileNotFoundError(f"{name}: no such image file")
        image = tf.io.read_file(name)
    try:
        if isinstance(image, bytes) or getattr(image, "dtype", None) == tf.string:
            return preprocessor.decode_image(image)
        if hasattr(image, "convert"):  # PIL's
            image = image.convert("RGB")
        pixels = np.asarray(image)
        if pixels.ndim != 3 or pixels.shape[-1] != 3 or not _is_integer(pixels):
            raise ValueError(
                f"{name}: not a path, encoded image or integer array (height, width, 3), but "
                f"{pixels.dtype} {pixels.shape}"
            )
        return preprocessor.crop_image(pixels)
    except tf.errors.InvalidArgumentError as error:
        reason = "too many pixels" if "too many pixels" in error.message else "does not decode"
        raise ValueError(f"{name}: {reason}; give a JPEG, PNG, GIF or BMP image") from error


def _is_integer(array):
    return tf.as_dtype(array.dtype).is_integer


def caption_batches(captions, preprocessor, batch_size):
    """Yields batches of model inputs from captions.

    Args:
        captions: a list of strings, or a single one; a dict of ``token_ids``, ``segment_ids`` and
            ``padding_mask``, ``(count, sequence)``; or a ``tf.data.Dataset`` of strings, or of
            dicts with a field ``captions`` or those three; batched or not.
        preprocessor: an ``AlignPreprocessor``, or None where all are tokenised.
        batch_size: captions a batch; a batched dataset keeps its own.

    Yields:
        Dicts of int32, ``(batch, sequence)``.

    Raises:
        ValueError: if something is no string.
    """
    if isinstance(captions, tf.data.Dataset):
        yield from prepare_dataset(captions, preprocessor, batch_size, ("captions", *TEXT_INPUTS))
        return
    if isinstance(captions, dict):
        for start in range(0, len(captions["token_ids"]), batch_size):
            yield {name: captions[name][start : start + batch_size] for name in TEXT_INPUTS}
        return
    _check_preprocessor(preprocessor)
    if isinstance(captions, str | bytes):
        captions = [captions]
    captions = captions.numpy() if tf.is_tensor(captions) else captions
    if not hasattr(captions, "__len__"):
        raise ValueError(f"not captions, but {captions!r}")
    for start in range(0, len(captions), batch_size):
        chunk = list(captions[start : start + batch_size])
        for place, caption in enumerate(chunk, start):
            if not isinstance(caption, str | bytes):
                raise ValueError(f"caption {place}: not a string, but {caption!r}")
        yield preprocessor.tokenize(chunk)


def pair_batches(pairs, preprocessor, batch_size):
    """Yields batches of model inputs from a dict of ``images`` and ``captions``, as above.

    Raises:
        ValueError: if one is missing or their numbers differ.
    """
    for name in ("images", "captions"):
        if name not in pairs:
            raise ValueError(
                f"no {name} in the inputs; to embed one kind use encode_images or encode_texts"
            )
    if len(pairs["images"]) != len(pairs["captions"]):
        raise ValueError(
            f"{len(pairs['images'])} images and {len(pairs['captions'])} captions are no pairs; "
            "use encode_images and encode_texts"
        )
    batches = zip(
        image_batches(pairs["images"], preprocessor, batch_size),
        caption_batches(pairs["captions"], preprocessor, batch_size),
        strict=True,
    )
    for images, captions in batches:
        yield {"images": images, **captions}


def prepare_dataset(dataset, preprocessor, batch_size=32, fields=("images", "captions")):
    """Maps a ``tf.data.Dataset`` of raw fields to batches of model inputs.

    Args:
        dataset: of dicts with ``images`` and ``captions`` as ``image_batches`` and
            ``caption_batches`` take them, or of the first of ``fields`` alone.
        preprocessor: an ``AlignPreprocessor``.
        batch_size: pairs a batch, if the dataset is not batched.
        fields: those to keep; others of a dict are dropped unless this is the default.

    Returns:
        A ``tf.data.Dataset``.
    """
    if not isinstance(dataset.element_spec, dict):
        field = fields[0]
        dataset = dataset.map(lambda value: {field: value})
    elif fields != ("images", "captions"):
        kept = [name for name in fields if name in dataset.element_spec]
        if not kept:
            raise ValueError(f"the dataset has no field {' or '.join(fields)}")
        dataset = dataset.map(lambda value: {name: value[name] for name in kept})
    spec = dataset.element_spec
    raw_images = "images" in spec and not spec["images"].dtype.is_floating
    if raw_images or "captions" in spec:
        _check_preprocessor(preprocessor)
    unbatched = {"images": 0 if raw_images and spec["images"].dtype == tf.string else 3}
    is_batched = all(
        value.shape.rank > unbatched.get(name, 0 if name == "captions" else 1)
        for name, value in spec.items()
        if name in (*MODEL_INPUTS, "captions")
    )

    def prepare_image(image):
        if image.dtype == tf.string:
            return preprocessor.decode_image(_contents(image))
        return preprocessor.crop_image(image)

    def prepare_images(batch):
        images = batch["images"]
        if is_batched:
            images = tf.map_fn(prepare_image, images, fn_output_signature=tf.float32)
        else:
            images = prepare_image(images)
        return {**batch, "images": images}

    if raw_images:
        dataset = dataset.map(prepare_images, num_parallel_calls=tf.data.AUTOTUNE)
    if not is_batched:
        dataset = dataset.batch(batch_size)
    if "captions" in spec:
        dataset = dataset.map(lambda batch: preprocessor(batch))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _contents(string):
    """The string itself if it is an encoded image, else the contents of the file it names."""
    head = tf.strings.join([tf.strings.substr(string, 0, 10), " " * 10])
    # Of a JPEG, PNG and GIF; and the four zeros in a BMP's, which no path has.
    marks = {0: (b"\xff\xd8", b"\x89PNG", b"GIF8"), 6: (b"\0\0\0\0",)}
    is_encoded = tf.reduce_any(
        [
            tf.strings.substr(head, place, len(mark)) == mark
            for place, texts in marks.items()
            for mark in texts
        ]
    )
    return tf.cond(is_encoded, lambda: string, lambda: tf.io.read_file(string))


def _check_preprocessor(preprocessor):
    if preprocessor is None:
        raise ValueError(
            "the model has no preprocessor for raw images or captions; set model.preprocessor"
        )
