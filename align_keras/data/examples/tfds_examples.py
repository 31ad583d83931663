"""Evaluation sets of TensorFlow Datasets; what cannot be had where it runs is one line."""

import functools

from align_keras.data.examples.examples import Example, ExampleSet
from align_keras.data.examples.tfds_builder import prepared_builder


def open_tfds(name, split):
    """Opens a split of a TFDS set.

    Args:
        name: as ``tfds.builder`` takes it, or the folder of a prepared set; ``@SPLIT`` behind it
            for another split.
        split: otherwise.

    Returns:
        An ``ExampleSet``, with the names of its classes.

    Raises:
        ValueError: if tensorflow-datasets is missing, or has no such set or split, or cannot
            prepare it, or the set has no image. One line.
    """
    name, _, own = name.partition("@")
    split = own or split
    try:
        builder = prepared_builder(name)
    except ValueError as error:
        raise ValueError(f"--data: {error}, or give --data=FOLDER") from None
    info = builder.info
    if split not in info.splits:
        raise ValueError(
            f"--split: tfds:{name} has no split {split!r}; it has {', '.join(info.splits)}"
        )
    if "image" not in info.features:
        raise ValueError(f"--data: tfds:{name} has no image, only {', '.join(info.features)}")
    has_label = "label" in info.features
    names = getattr(info.features["label"], "names", None) if has_label else None
    return ExampleSet(
        functools.partial(_read, builder, split),
        tuple(name.replace("_", " ") for name in names) if names else None,
    )


def _read(builder, split, seed=None):
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        shuffle_files=seed is not None,
        read_config=tfds.ReadConfig(shuffle_seed=seed),
    )
    for index, fields in enumerate(tfds.as_numpy(dataset)):
        where = f"{builder.name} {split} {index}"
        captions = fields.get("captions", {})
        texts = captions.get("text", ()) if isinstance(captions, dict) else captions
        yield Example(
            where=where,
            image_id=where,
            load=functools.partial(bytes, fields["image"]),
            captions=tuple(text.decode("utf-8") for text in texts),
            label=int(fields["label"]) if "label" in fields else None,
        )
