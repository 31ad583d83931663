"""The features of frozen towers, computed once before training and kept in the run's directory."""

import time
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from align_keras import checksums, files, progress
from align_keras.data import pipeline
from align_keras.data.cached_pairs import CachedPairs
from align_keras.errors import InputError, Place
from align_keras.models.dual_encoder import AlignDualEncoder
from align_keras.paths import AnyPath
from align_keras.preprocessing.fields import PIXELS, TEXT_FEATURES, TEXT_INPUTS
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.runs.frozen_towers import frozen_towers
from align_keras.runs.pretraining_data import RunData
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.wording import counted, rate

_BATCH_SIZE = 256
_FOLDER = "features"


def open_cache(
    settings: PretrainSettings, data: RunData, model: AlignDualEncoder, workdir: AnyPath
) -> CachedPairs | None:
    """The run's pairs with the features of its frozen towers; None without ``cache_features``.

    If the directory has an intact folder ``features``, the features are read from it. Otherwise
    they are computed and written to this folder.

    Args:
        settings: the run's settings.
        data: the run's data.
        model: the run's model, with the weights to use.
        workdir: the directory of this process.
    """
    views = settings.data.cache_features
    if not views:
        return None
    folder = workdir / _FOLDER
    arrays = _read(folder, sum(data.counts.values()), views)
    if arrays is not None:
        files.remove_left_work(folder)
    else:
        text_frozen = frozen_towers(settings.model.freeze).get("text_encoder", 0) is None
        arrays = _compute(model, data, views, settings.run.seed, text_frozen)
        with files.whole_folder(folder, replace=True) as work:
            for name, values in arrays.items():
                np.save(work / f"{name}.npy", values)
            checksums.write_folder(work)
    counts = [data.counts[shard] for shard in sorted(data.counts)]
    texts = {name: arrays.pop(name) for name in (TEXT_FEATURES, *TEXT_INPUTS) if name in arrays}
    shards = np.repeat(np.arange(1, len(counts) + 1, dtype="int32"), counts)
    return CachedPairs(**arrays, texts=texts, shards=shards)


def _read(folder: AnyPath, records: int, views: int) -> dict[str, np.ndarray] | None:
    """Reads the arrays in a folder, by name; None if there are none.

    If they are damaged or belong to other data, a line is printed and the result is None.
    """
    if not (folder / checksums.NAME).exists():
        return None
    try:
        for fault in checksums.faults(checksums.list_of(folder)):
            raise fault
        found = {}
        for name in checksums.read(checksums.list_of(folder)) or ():
            with (folder / name).open("rb") as file:
                found[name.removesuffix(".npy")] = np.load(file)
        size = len(found["valid"]), found["image_features"].shape[1]
        if size != (records, views):
            problem = f"{size[0]:,} records and {size[1]} views, not {records:,} and {views}"
            raise InputError(problem, Place(str(folder)))
        return found
    except InputError as error:
        progress.tell(f"{error}: the features are computed again")
        return None


def _compute(
    model: AlignDualEncoder, data: RunData, views: int, seed: int, text_frozen: bool
) -> dict[str, np.ndarray]:
    """All arrays of ``CachedPairs`` except ``shards``, by name, including those in ``texts``."""
    started = time.perf_counter()
    first_records, features, fields = _first_view(model, data)
    each_view = [features]
    for view in range(1, views):
        each_view.append(_further_view(model, data, first_records, seed + view))
    if text_frozen:
        inputs = {name: fields.pop(name) for name in TEXT_INPUTS}
        fields[TEXT_FEATURES] = _text_features(model, inputs)
    data.counts.watched.check()
    seconds = time.perf_counter() - started
    progress.tell(
        f"features of {counted(len(features), 'image')}, {counted(views, 'view')} of each: "
        f"{seconds:.0f} s, {rate(views * len(features), seconds, 'views')}"
    )
    return {"image_features": np.stack(each_view, axis=1), **fields}


def _first_view(
    model: AlignDualEncoder, data: RunData
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The first record of each image, the features of its centre crop, and all records' fields."""
    known: dict[int, int] = {}  # number of each image, by its id
    first_records: list[int] = []
    features: list[np.ndarray] = []
    parts: list[dict[str, np.ndarray]] = []
    for number, batch in enumerate(_batches(data.preprocessor, data.counts)):
        images, new = np.zeros(_BATCH_SIZE, "int64"), []
        for row in np.flatnonzero(batch["valid"]):
            image_id = int(batch["image_ids"][row])
            # A record without an image id counts as a separate image.
            if image_id == 0 or image_id not in known:
                known[image_id] = len(first_records)
                first_records.append(number * _BATCH_SIZE + int(row))
                new.append(row)
            images[row] = known[image_id]
        pixels = batch.pop(PIXELS)
        if new:
            features.append(model.encode_image_features(pixels[new], _BATCH_SIZE, cropped=True))
        parts.append(batch | {"images": images})
    if not features:
        raise InputError(
            "no pair is readable",
            remedy="check the shards with recipes/inspect_data.py",
            setting="train_data",
        )
    names = ("images", "valid", "image_ids", "caption_ids", *TEXT_INPUTS)
    total = sum(data.counts.values())
    fields = {name: np.concatenate([part[name] for part in parts])[:total] for name in names}
    return np.array(first_records), np.concatenate(features), fields


def _further_view(
    model: AlignDualEncoder, data: RunData, first_records: np.ndarray, seed: int
) -> np.ndarray:
    """The features of a random crop of each image, in the order of their first records."""
    features = []
    for number, batch in enumerate(_batches(data.preprocessor, data.counts, seed)):
        chosen = first_records[first_records // _BATCH_SIZE == number] % _BATCH_SIZE
        if len(chosen):
            crops = batch[PIXELS][chosen]
            features.append(model.encode_image_features(crops, _BATCH_SIZE, cropped=True))
    return np.concatenate(features)


def _batches(
    preprocessor: AlignPreprocessor, counts: Mapping[str, int], augment_seed: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    dataset = pipeline.evaluation_dataset(counts, preprocessor, _BATCH_SIZE, augment_seed)
    total, done = sum(counts.values()), 0
    with progress.bar("computing the features of images", total, "pair") as bar:
        for batch in dataset.as_numpy_iterator():
            yield batch
            done += _BATCH_SIZE
            bar.done = min(done, total)


def _text_features(model: AlignDualEncoder, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The text tower's features of all captions; each batch has captions of similar length."""
    tower = tf.function(
        lambda batch: model.backbone.text_encoder(batch, training=False),
        reduce_retracing=True,
        autograph=False,
    )
    lengths = inputs["padding_mask"].sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    found = np.zeros((len(order), model.backbone.text_encoder.output_shape[-1]), "float32")
    starts = range(0, len(order), _BATCH_SIZE)
    for start in progress.watch(starts, "computing the features of captions", "batch", len(starts)):
        rows = order[start : start + _BATCH_SIZE]
        batch = {name: values[rows, : lengths[rows[-1]]] for name, values in inputs.items()}
        found[rows] = tower(batch).numpy()
    return found
