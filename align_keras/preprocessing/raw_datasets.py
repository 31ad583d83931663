"""Converts ``tf.data`` data sets of raw images and captions to batches of model inputs."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from align_keras.errors import InputError, MissingInputError
from align_keras.preprocessing import pixel_ranges
from align_keras.preprocessing.decoding.faults import FORMATS, fault_of
from align_keras.preprocessing.fields import PIXELS, TEXT_INPUTS
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.tracing import as_written


def prepare_pairs(
    dataset: tf.data.Dataset, preprocessor: AlignPreprocessor | None, batch_size: int
) -> tf.data.Dataset:
    """Maps a ``tf.data.Dataset`` of pairs to batches of model inputs.

    Args:
        dataset: elements are dicts with ``images`` and ``captions``, as in ``image_batches`` and
            ``caption_batches``; other fields are passed through.
        preprocessor: an ``AlignPreprocessor``.
        batch_size: pairs per batch, if the dataset is not batched.

    Returns:
        A ``tf.data.Dataset``.

    Raises:
        InputError: if a field is missing or has the wrong type.
    """
    spec = dataset.element_spec
    for name in ("images", "captions"):
        if not isinstance(spec, dict) or name not in spec:
            raise InputError(
                f"the dataset has no field {name}",
                remedy="to embed only images or only captions, use encode_images or encode_texts",
            )
    return prepare(dataset, preprocessor, batch_size, ("images", "captions"), keep_others=True)


def prepare(
    dataset: tf.data.Dataset,
    preprocessor: AlignPreprocessor | None,
    batch_size: int,
    fields: Sequence[str],
    keep_others: bool,
) -> tf.data.Dataset:
    """Maps the raw ``fields`` of a dataset to batches of inputs; keeps or drops the others."""
    if not isinstance(dataset.element_spec, dict):
        # TensorFlow Datasets, for example, gives (image, label).
        dataset = dataset.map(as_written(lambda value, *_: {fields[0]: value}))
    spec = dataset.element_spec
    kept = [name for name in spec if keep_others or name in fields]
    if not kept:
        raise InputError(f"the dataset has no field {' or '.join(fields)}")
    dataset = dataset.map(as_written(lambda value: {name: value[name] for name in kept}))
    raw_images = "images" in kept and not spec["images"].dtype.is_floating
    if raw_images or "captions" in kept:
        preprocessor = check_preprocessor(preprocessor)
    is_batched = _is_batched({name: spec[name] for name in kept})

    @as_written
    def prepare_images(batch):
        batch = dict(batch)
        images = batch.pop("images")
        each = _preparing(images.dtype, preprocessor)
        images = tf.map_fn(each, images, tf.uint8) if is_batched else each(images)
        return {**batch, PIXELS: images}

    if raw_images:
        dataset = dataset.map(prepare_images, num_parallel_calls=tf.data.AUTOTUNE)
    elif "images" in kept:
        dataset = check_images(dataset, preprocessor)
    if not is_batched:
        dataset = dataset.batch(batch_size)
    if "captions" in kept:
        tokenizing = check_preprocessor(preprocessor)
        dataset = dataset.map(as_written(lambda batch: tokenizing(batch)))
    return dataset.prefetch(tf.data.AUTOTUNE)


def check_images(
    dataset: tf.data.Dataset, preprocessor: AlignPreprocessor | None
) -> tf.data.Dataset:
    """The dataset of model inputs; iteration fails if an image is out of range."""

    @as_written
    def check(batch):
        return {**batch, "images": pixel_ranges.checked(batch["images"], preprocessor)}

    return dataset.map(check) if "images" in dataset.element_spec else dataset


def _is_batched(spec):
    """Whether a dataset's elements are batches; InputError if their type is unsupported."""
    batched = set()
    for name, field in spec.items():
        ranks = {"images": (0, 1) if field.dtype == tf.string else (3, 4), "captions": (0, 1)}
        ranks = ranks.get(name, (1, 2) if name in TEXT_INPUTS else None)
        if ranks is None:
            continue
        if field.shape.rank not in ranks:
            raise InputError(
                f"the dataset's {name} have the shape {field.shape}",
                remedy="set the shape",
            )
        batched.add(field.shape.rank == ranks[1])
        if name == "captions" and field.dtype != tf.string:
            raise InputError(f"the dataset's captions are {field.dtype.name}, not strings")
        if name == "images" and field.dtype != tf.string:
            known = field.dtype.is_floating or field.dtype == tf.uint8
            if not known or field.shape[-1] not in (3, None):
                raise InputError(
                    f"the dataset's images are {field.dtype.name} {field.shape}",
                    remedy="give uint8 (height, width, 3)",
                )
    if len(batched) > 1:
        raise InputError("some of the dataset's fields are batched and some are not")
    return batched.pop()


def _preparing(dtype, preprocessor):
    """The function that converts one image of a dataset to a crop."""
    if dtype != tf.string:
        return preprocessor.centre_crop
    return lambda string: preprocessor.decode_centre_crop(_contents(string))


def _contents(string):
    """The string if it is an encoded image, else the contents of the file of that name."""
    head = tf.strings.join([tf.strings.substr(string, 0, 12), " " * 12])
    # Marks of JPEG, PNG, GIF and WebP, and the four zeros in a BMP, which no path contains.
    marks = {
        0: (b"\xff\xd8", b"\x89PNG", b"GIF87a", b"GIF89a"),
        6: (b"\0\0\0\0",),
        8: (b"WEBP",),
    }
    is_encoded = tf.reduce_any(
        [
            tf.strings.substr(head, place, len(mark)) == mark
            for place, texts in marks.items()
            for mark in texts
        ]
    )
    return tf.cond(is_encoded, lambda: string, lambda: tf.io.read_file(string))


def iterate(dataset: tf.data.Dataset, preprocessor: AlignPreprocessor | None) -> Iterator[Any]:
    """Yields a dataset's batches; an error in the dataset is raised as one line."""
    with one_line(preprocessor):
        yield from dataset


@contextlib.contextmanager
def one_line(preprocessor: AlignPreprocessor | None) -> Iterator[None]:
    """Inside the block, an error in a dataset of ``prepare`` is raised as InputError."""
    try:
        yield
    except tf.errors.NotFoundError as error:
        reason = error.message.splitlines()[0].partition("}} ")
        raise MissingInputError(f"the dataset: {reason[2] or reason[0]}") from error
    except tf.errors.InvalidArgumentError as error:
        if out_of_range := pixel_ranges.error_of(error, preprocessor):
            raise out_of_range from error
        if "IteratorGetNext" not in error.message:
            raise  # the caller's own work with the batches failed
        problem = f"an image of the dataset {fault_of(error)}"
        raise InputError(problem, remedy=f"give {FORMATS}") from error


def check_preprocessor(preprocessor: AlignPreprocessor | None) -> AlignPreprocessor:
    """The preprocessor; raises InputError if there is none."""
    if preprocessor is None:
        raise InputError(
            "the model has no preprocessor for raw images or captions",
            remedy="set model.preprocessor",
        )
    return preprocessor
