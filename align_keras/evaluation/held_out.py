"""Evaluates a model on shards of held-out pairs, during and after training."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from align_keras import distribution, progress
from align_keras.data import paper_rules, records
from align_keras.data.evaluation_images import evaluation_images
from align_keras.data.image_groups import number_of
from align_keras.data.pairs import read_pair
from align_keras.data.shard_order import ShardCounts
from align_keras.errors import InputError
from align_keras.evaluation import retrieval, zero_shot
from align_keras.evaluation.embedding import embed_texts
from align_keras.evaluation.metrics import ACCURACIES
from align_keras.preprocessing import thumbnails
from align_keras.preprocessing.preprocessor import AlignPreprocessor

# Longer side of a picture on a sheet, in pixels.
_PICTURE = 320


class HeldOutPairs:
    """Held-out pairs: their images, captions and classes.

    Records of the same image often hold the same bytes: these are decoded and embedded once.

    Args:
        counts: the number of records of each shard, by path.
        preprocessor: an ``AlignPreprocessor``.
        batch_size: images embedded at a time.
    """

    def __init__(
        self, counts: Mapping[str, int], preprocessor: AlignPreprocessor, batch_size: int
    ) -> None:
        self.preprocessor = preprocessor
        self.batch_size = batch_size
        self._counts, self._total = counts, sum(counts.values())
        self._traced: tuple[Any, Callable] | None = None
        # Row i of the embeddings belongs to record i of the shards.
        read = progress.watch(self._read(), "reading held-out captions", "record", self._total)
        fields = [_small_fields(record) for record in read]
        images = [pair["image"] for pair in fields]
        first = {digest: row for row, digest in reversed(list(enumerate(images)))}
        # The first record with the same bytes; -1 for a record that has none.
        self._first = np.array([first[own] if own else -1 for own in images], np.int64)
        self._image_ids = np.array([pair["image_id"] for pair in fields], np.int64)
        self.images_to_embed = np.unique(self._first[self._first >= 0])
        self.dataset = evaluation_images(counts, preprocessor, batch_size, self.images_to_embed)
        self.captions = [_text(pair.get("txt", b"")) for pair in fields]
        self._has_caption = np.array([_is_caption(pair.get("txt")) for pair in fields], bool)
        names = [_text(pair.get("class_name", b"")) for pair in fields]
        self.class_names = sorted({name for name in names if name})
        index = {name: i for i, name in enumerate(self.class_names)}
        self.labels = np.array([index.get(name, -1) for name in names])
        # An integer, or its digits if it comes from a table of strings.
        self.unseen = np.array(
            [_text(pair.get("unseen_class", 0)) not in ("", "0") for pair in fields]
        )

    def _read(self) -> Iterator[bytes | None]:
        for shard in sorted(self._counts):
            yield from records.read_records(shard, self._counts[shard])

    def embed(self, model: Any) -> dict[str, np.ndarray]:
        """Embeds every pair.

        Returns:
            A dict of arrays with one row for each readable pair: ``rows`` (the index of the
            record), ``image_embeddings`` and ``text_embeddings``, ``(pairs, dim)``, and ``groups``,
            which is equal for pairs of the same image.

        Raises:
            InputError: if no pair is readable, or a shard has changed since it was opened, so that
                captions and classes may no longer match.
        """
        # Without an image there is nothing to embed, and Keras fails.
        outputs = self._predict(model) if len(self.images_to_embed) else None
        if isinstance(self._counts, ShardCounts):
            self._counts.watched.check()
        place = np.full(self._total + 1, -1)  # the last is of records without an image
        if outputs is not None:
            valid = outputs["valid"]
            place[outputs["positions"][valid]] = np.flatnonzero(valid)
        images = place[self._first]
        rows = np.flatnonzero((images >= 0) & self._has_caption)
        if outputs is None or not len(rows):
            raise InputError(
                "none of the pairs is readable",
                remedy="check the shards with recipes/inspect_data.py",
            )
        # A record without an image id counts as a separate image.
        image_ids = np.where(self._image_ids[rows] == 0, -1 - rows, self._image_ids[rows])
        captions = [self.captions[row] for row in rows]
        return {
            "rows": rows,
            "image_embeddings": outputs["image_embeddings"][images[rows]],
            "text_embeddings": embed_texts(model, captions, self.batch_size),
            "groups": np.unique(image_ids, return_inverse=True)[1],
        }

    def _predict(self, model: Any) -> dict[str, np.ndarray]:
        """The embeddings of ``images_to_embed``."""
        _, workers = distribution.worker_place(model.distribute_strategy)
        total = len(self.images_to_embed)
        with progress.bar("embedding held-out images", total, "image") as bar:

            def count(batch: int, logs: Any = None) -> None:
                bar.done = min((batch + 1) * self.batch_size, total)

            if workers == 1:
                counting = keras.callbacks.LambdaCallback(on_predict_batch_end=count)
                return model.predict(self.dataset, verbose=0, callbacks=[counting])
            return self._predict_alone(model, count)

    def _predict_alone(self, model: Any, count: Callable[[int], None]) -> dict[str, np.ndarray]:
        # Keras would split the data among the workers. Here every worker embeds all of it.
        if self._traced is None or self._traced[0] is not model:
            self._traced = model, tf.function(model.predict_step, autograph=False)
        _, predict = self._traced
        batches = []
        for number, batch in enumerate(self.dataset):
            batches.append(tf.nest.map_structure(np.array, predict(batch)))
            count(number)
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def retrieval(
        self, embeddings: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Recalls in both directions, and their chance levels: two dicts of fractions."""
        return retrieval.retrieval_metrics(
            embeddings["image_embeddings"], embeddings["text_embeddings"], embeddings["groups"]
        )

    def zero_shot(
        self, model: Any, embeddings: Mapping[str, np.ndarray], prompts: Sequence[str]
    ) -> tuple[dict[str, float | None], dict[str, float | None]]:
        """Top-1 accuracy on the records' ``class_name``, and its chance level: two dicts.

        ``zero_shot_unseen_top_1`` is the accuracy on records marked ``unseen_class``, among all
        classes. A value is ``None`` if the records lack the data for it.
        """
        labels, unseen = self.labels[embeddings["rows"]], self.unseen[embeddings["rows"]]
        metrics: dict[str, float | None] = dict.fromkeys(ACCURACIES)
        chance = dict(metrics)
        if len(self.class_names) < 2:
            return metrics, chance
        filled = zero_shot.fill_prompts(self.class_names, prompts)
        captions = self.preprocessor.tokenize(filled, pad_to_longest=True)
        classes = zero_shot.class_embeddings(
            model.encode_texts(captions, self.batch_size), len(self.class_names)
        )
        for name, chosen in zip(ACCURACIES, (labels >= 0, (labels >= 0) & unseen), strict=True):
            if chosen.any():
                images = embeddings["image_embeddings"][chosen]
                metrics[name] = zero_shot.top_k_accuracy(images, classes, labels[chosen])
                chance[name] = 1.0 / len(self.class_names)
        return metrics, chance

    def images(self, rows: np.ndarray) -> list[np.ndarray]:
        """The images of some records: uint8, ``(height, width, 3)``, at most 320 pixels long.

        Returns one image for each of ``rows``, upright and in its aspect ratio.
        """
        wanted = set(np.asarray(rows).tolist())
        images = {}
        for row, record in enumerate(self._read()):
            if row in wanted and record is not None:
                images[row] = thumbnails.small_pixels(records.parse_pair(record)["jpg"], _PICTURE)
        return [images[row] for row in np.asarray(rows).tolist()]


def _small_fields(record: bytes | None) -> dict[str, Any]:
    """A record's fields, with a digest in place of the image, which would fill memory."""
    found: dict[str, Any] = {"image": b"", "image_id": 0}
    try:
        fields = records.parse_pair(record) if record is not None else {}
    except ValueError:
        return found
    pair = read_pair(record or b"")
    if pair.image:
        found["image"] = hashlib.blake2b(pair.image, digest_size=16).digest()
    found["image_id"] = number_of(pair.image_id)
    names = ("txt", "class_name", "unseen_class")
    return found | {name: fields[name] for name in names if name in fields}


def _is_caption(value: Any) -> bool:
    """Whether training takes a record's ``txt``: UTF-8 with words."""
    try:
        return isinstance(value, bytes) and paper_rules.has_words(value.decode())
    except UnicodeDecodeError:
        return False


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
