"""Crisscrossed Captions: correlations with human judgements, and four retrieval tasks."""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from align_keras import lazy, paths
from align_keras.data.examples.example import caption_fault
from align_keras.data.examples.image_files import is_hidden
from align_keras.errors import InputError, MissingInputError, Place, concerning
from align_keras.evaluation import crisscrossed, retrieval
from align_keras.evaluation.metrics import RECALL_AT
from align_keras.evaluation.tasks.data import image_file
from align_keras.evaluation.tasks.result import Result
from align_keras.paths import AnyPath
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.evaluation import embedding
else:
    embedding = lazy.Module("align_keras.evaluation.embedding")

_COCO = re.compile(r"(?:.*_)?[0-9]+\.jpg")
#: Values ``(first, second, scores)`` of ``read_judgements``, by kind.
Judgements = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class JudgedItems:
    """The judgements, and the judged captions and images that were found."""

    judgements: Judgements
    captions: dict[int, tuple[int, str]]
    """``(image id, text)`` by caption id, in the order of the ids."""
    files: dict[int, AnyPath]
    """Image files by image id, in the order of the ids."""
    num_captions: int
    """Number of judged captions, including those that were not found."""
    num_images: int


@dataclasses.dataclass(frozen=True)
class Crisscrossed:
    """Correlations with human judgements, and retrieval of the answers that people rated right."""

    kind: ClassVar[str] = "crisscrossed"
    name: str = "crisscrossed"
    data: str = ""
    """The folder with ``sts_test.csv``, ``sis_test.csv`` and ``sits_test.csv``."""
    split: str = ""
    """``val`` or ``test``; empty for ``test``."""
    captions: str = ""
    """COCO's ``captions_val2014.json`` or Karpathy's ``dataset_coco.json``; empty for none."""
    images: str = ""
    """The folder of COCO's images; empty for none."""
    batch_size: int = 64
    bootstrap_samples: int = 1_000
    seed: int = 0
    """Decides the bootstrap samples."""

    def open(self) -> JudgedItems:
        """Reads the judgements and captions, and locates the images."""
        with concerning("data"):
            if not self.data:
                raise InputError("give the folder of sts_test.csv, sis_test.csv and sits_test.csv")
            judgements = {
                kind: crisscrossed.read_judgements(self.data, kind, self.split or "test")
                for kind in ("sts", "sis", "sits")
            }
        captions, files = {}, {}
        if self.captions:
            with concerning("captions"):
                captions = read_coco_captions(self.captions)
        if self.images:
            with concerning("images"):
                files = find_coco_images(self.images)
        caption_ids = _ids(*judgements["sts"][:2], judgements["sits"][0])
        image_ids = _ids(*judgements["sis"][:2], judgements["sits"][1])
        items = JudgedItems(
            judgements,
            {own: captions[own] for own in caption_ids if own in captions},
            {own: files[own] for own in image_ids if own in files},
            len(caption_ids),
            len(image_ids),
        )
        if not items.captions and not items.files:
            raise InputError(
                f"none of the {items.num_captions:,} captions and {items.num_images:,} images of "
                "COCO that were judged was found",
                remedy="give captions_val2014.json or dataset_coco.json as <captions>, and the "
                "folder val2014 as <images>",
                setting="captions",
            )
        return items

    def run(self, model: Any, data: JudgedItems, output: AnyPath) -> Result:
        """Embeds the given captions and images; notes name the comparisons that are missing."""
        result = Result(
            "crisscrossed",
            f"{self.name}: {len(data.captions):,} of {counted(data.num_captions, 'caption')}, "
            f"{len(data.files):,} of {counted(data.num_images, 'image')}",
            {},
            {},
        )
        embedded = self._embed(model, data, result.notes)
        for kind, ways in (("sts", "tt"), ("sis", "ii"), ("sits", "ti")):
            if set(ways) <= embedded.keys():
                pair = [embedded[way] for way in ways]
                try:
                    figures = self._correlation(data.judgements[kind], *pair)
                except InputError as error:
                    result.notes.append(f"{kind.upper()} is left out: {error}")
                    continue
                result.metrics |= {f"{kind}_spearman{end}": own for end, own in figures.items()}
                result.chance[f"{kind}_spearman"] = 0.0
        for way in ("i2t", "t2i", "t2t", "i2i"):
            if {way[0], way[2]} <= embedded.keys():
                (queries, query_embeddings), (keys, key_embeddings) = (
                    embedded[way[0]],
                    embedded[way[2]],
                )
                positives = right_answers(way, data, queries, keys)
                metrics, chance = recalls_among(query_embeddings, key_embeddings, positives, way)
                result.metrics |= metrics
                result.chance |= chance
        return result

    def _embed(
        self, model: Any, data: JudgedItems, notes: list[str]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The ids and embeddings of captions (``t``) and images (``i``)."""
        embedded = {}
        if data.captions:
            texts = embedding.embed_texts(model, [text for _, text in data.captions.values()])
            embedded["t"] = np.array(list(data.captions)), texts
        else:
            notes.append("no captions: STS, SITS and all retrieval but image to image are left out")
        if data.files:
            with concerning("images"):
                images = embedding.embed_images(
                    model.encode_images,
                    embedding.watched([image_file(path) for path in data.files.values()]),
                    model.preprocessor,
                    self.batch_size,
                )
            embedded["i"] = np.array(list(data.files)), images
        else:
            notes.append("no images: SIS, SITS and all retrieval but text to text are left out")
        return embedded

    def _correlation(
        self,
        judgements: tuple[np.ndarray, np.ndarray, np.ndarray],
        first_embedded: tuple[np.ndarray, np.ndarray],
        second_embedded: tuple[np.ndarray, np.ndarray],
    ) -> dict[str, float]:
        """Spearman's correlation over the judged pairs that were found, and its deviation."""
        first, second, scores = judgements
        (first_ids, first_embeddings), (second_ids, second_embeddings) = (
            first_embedded,
            second_embedded,
        )
        there = np.isin(first, first_ids) & np.isin(second, second_ids)
        # The ids are sorted, since the dicts were built in that order.
        rows = np.searchsorted(first_ids, first[there])
        columns = np.searchsorted(second_ids, second[there])
        similarities = np.sum(first_embeddings[rows] * second_embeddings[columns], axis=1)
        mean, deviation = crisscrossed.bootstrap_correlation(
            first[there], similarities, scores[there], self.bootstrap_samples, self.seed
        )
        return {"": mean, "_deviation": deviation, "_pairs": int(there.sum())}


def _ids(*ids: np.ndarray) -> list[int]:
    return np.unique(np.concatenate(ids)).tolist()


def read_coco_captions(path: str | AnyPath) -> dict[int, tuple[int, str]]:
    """Reads the captions of COCO's annotations or Karpathy's file: ``{id: (image id, text)}``.

    Raises:
        MissingInputError: if the file does not exist.
        InputError: if the file has another format, or a caption is empty or not text.
    """
    place = Place(file=str(path))
    file = paths.path_of(path)
    if not file.is_file():
        raise MissingInputError("no such file", place)
    try:
        table = json.loads(file.read_bytes())
        if "annotations" in table:
            rows = [(row["id"], row["image_id"], row["caption"]) for row in table["annotations"]]
        else:
            rows = [
                (sentence["sentid"], row["cocoid"], sentence["raw"])
                for row in table["images"]
                for sentence in row["sentences"]
            ]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "neither COCO's captions_val2014.json nor dataset_coco.json", place
        ) from None
    for own, _, text in rows:
        if fault := caption_fault(text):
            raise InputError(fault, dataclasses.replace(place, row=f"caption {own}"))
    return {own: (image, text.strip()) for own, image, text in rows}


def find_coco_images(folder: str | AnyPath) -> dict[int, AnyPath]:
    """The files of a folder by COCO id: ``{391895: .../COCO_val2014_000000391895.jpg}``."""
    found = paths.path_of(folder)
    if not found.is_dir():
        raise MissingInputError("no such folder", Place(file=str(folder)))
    images = (path for path in found.iterdir() if not is_hidden(path.name))
    # The folder may also hold images that are not COCO's.
    return {crisscrossed.coco_id(path.name): path for path in images if _COCO.fullmatch(path.name)}


def right_answers(
    way: str, data: JudgedItems, queries: np.ndarray, keys: np.ndarray
) -> list[list[int]]:
    """The indices of each query's right answers among the keys.

    Between a caption and an image, pairs with a rating of at least 3 are right, which includes the
    original pairs. Between two captions, captions of the same image are right as well. Between two
    images, only the rated pairs count.

    Args:
        way: ``i2t``, ``t2i``, ``t2t`` or ``i2i``.
        data: the judgements.
        queries: ids, ``(queries,)``.
        keys: ids, ``(keys,)``.
    """
    if way in ("i2t", "t2i"):
        caption, image, scores = data.judgements["sits"]
        pair = (caption, image) if way == "t2i" else (image, caption)
        return crisscrossed.positive_places(*pair, scores, queries, keys)
    first, second, scores = data.judgements["sts" if way == "t2t" else "sis"]
    both = np.concatenate([first, second]), np.concatenate([second, first])
    scores = np.concatenate([scores, scores])
    places = crisscrossed.positive_places(*both, scores, queries, keys)
    return _with_siblings(places, data.captions.values()) if way == "t2t" else places


def _with_siblings(places: list[list[int]], captions: Iterable[tuple[int, str]]) -> list[list[int]]:
    """Adds the other captions of the same image to each caption's right answers."""
    images = [image for image, _ in captions]
    of_image: dict[int, list[int]] = {}
    for place, image in enumerate(images):
        of_image.setdefault(image, []).append(place)
    return [
        sorted({*own, *of_image[image]} - {place})
        for place, (own, image) in enumerate(zip(places, images, strict=True))
    ]


def recalls_among(
    queries: np.ndarray, keys: np.ndarray, positives: Sequence[Sequence[int]], way: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Recalls of the queries that have a right answer, and their chance levels."""
    is_same = way[0] == way[2]
    ranks = retrieval.ranks_among_positives(queries, keys, positives, is_same)
    answered = ranks >= 0
    if not answered.any():
        return {}, {}
    counts = np.array([len(own) for own in positives])[answered]
    names = {k: f"{way}_recall_at_{k}" for k in RECALL_AT}
    candidates = len(keys) - is_same
    return (
        {own: retrieval.recall_at_k(ranks[answered], k) for k, own in names.items()},
        {own: retrieval.chance_recall_at_k(candidates, counts, k) for k, own in names.items()},
    )
