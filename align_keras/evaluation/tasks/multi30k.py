"""Multi30K: the same captions in four languages."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from align_keras import lazy, paths
from align_keras.data.examples.example import Example, caption_fault
from align_keras.errors import InputError, MissingInputError, Place, concerning
from align_keras.evaluation import data_sets, retrieval
from align_keras.evaluation.tasks.data import image_file
from align_keras.evaluation.tasks.result import Result
from align_keras.paths import AnyPath

if TYPE_CHECKING:
    from align_keras.evaluation import embedding
else:
    embedding = lazy.Module("align_keras.evaluation.embedding")

_LANGUAGES = ("en", "de", "fr", "cs")


@dataclasses.dataclass(frozen=True)
class ParallelCaptions:
    """Captions by language, all for the same images in the same order."""

    captions: dict[str, list[str]]
    images: list[Example]
    """Images in the order of the captions; empty if none were given."""


@dataclasses.dataclass(frozen=True)
class Multi30k:
    """Mean recalls of each language, and between English captions and other languages."""

    kind: ClassVar[str] = "multi30k"
    name: str = "multi30k"
    data: str = ""
    """The folder with ``test_2016_flickr.en``, ``.de`` and others, plain or ``.gz``."""
    split: str = ""
    """Split in the names of the files; empty for ``test_2016_flickr``."""
    captions: str = ""
    """The list of the images' file names, ``image_splits/test_2016_flickr.txt``."""
    images: str = ""
    """The folder of the images; empty to compare only captions."""
    batch_size: int = 64

    def open(self) -> ParallelCaptions:
        """Reads the captions, and locates the images."""
        split = self.split or "test_2016_flickr"
        with concerning("data"):
            captions = read_parallel_captions(self.data, split)
        images = self._open_images(split, len(next(iter(captions.values()))))
        return ParallelCaptions(captions, images)

    def _open_images(self, split: str, count: int) -> list[Example]:
        if not self.images:
            return []
        with concerning("captions"):
            if not self.captions:
                raise InputError(
                    f"give the list of the images' names, Multi30K's image_splits/{split}.txt"
                )
            names = data_sets.read_names(self.captions)
            if len(names) != count:
                raise InputError(
                    f"{len(names):,} names for {count:,} captions", Place(self.captions)
                )
        folder = paths.path_of(self.images)
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise MissingInputError(
                f"no such file ({len(missing):,} missing)",
                Place(str(folder / missing[0])),
                setting="images",
            )
        return [image_file(folder / name) for name in names]

    def run(self, model: Any, data: ParallelCaptions, output: AnyPath) -> Result:
        """Embeds the captions of every language and the images, and computes ranks."""
        texts = {own: embedding.embed_texts(model, lines) for own, lines in data.captions.items()}
        places = np.arange(len(next(iter(texts.values()))))
        title = f"{self.name}: {len(places):,} captions in each of {', '.join(texts)}"
        result = Result("multi30k", title, {}, {})

        def compare(name: str, queries: np.ndarray, keys: np.ndarray) -> None:
            metrics, chance = retrieval.full_metrics(queries, keys, places)
            result.metrics[name] = metrics["mean_recall"]
            result.chance[name] = chance["mean_recall"]

        if data.images:
            with concerning("images"):
                images = embedding.embed_images(
                    model.encode_images,
                    embedding.watched(data.images),
                    model.preprocessor,
                    self.batch_size,
                )
            for language, own in texts.items():
                compare(f"mean_recall_{language}", images, own)
        else:
            result.notes.append(
                "no images: image recalls are left out, and only captions are compared"
            )
        for language in [other for other in texts if other != "en" and "en" in texts]:
            compare(f"text_mean_recall_en_{language}", texts["en"], texts[language])
        for language, lines in data.captions.items():
            result.metrics[f"unknown_pieces_{language}"] = share_of_unknown(model, lines)
        return result


def read_parallel_captions(folder: str, split: str) -> dict[str, list[str]]:
    """The lines of ``SPLIT.en`` and so on, plain or ``.gz``, by language.

    Raises:
        MissingInputError: if none of the files exists.
        InputError: if the files differ in length, or a line is empty.
    """
    if not folder:
        raise InputError(f"give Multi30K's folder of {split}.en, {split}.de and others")
    captions = {}
    for language in _LANGUAGES:
        for path in (paths.path_of(folder) / f"{split}.{language}{end}" for end in ("", ".gz")):
            if path.is_file():
                captions[language] = data_sets.read_lines(path)
                for number, caption in enumerate(captions[language], 1):
                    if fault := caption_fault(caption):
                        raise InputError(fault, Place(str(path), f"line {number}"))
    if not captions:
        raise MissingInputError(f"no {split}.en and no other language", Place(folder))
    if len({len(lines) for lines in captions.values()}) > 1:
        raise InputError(f"the files {split}.* differ in length", Place(folder))
    return captions


def share_of_unknown(model: Any, captions: list[str]) -> float:
    """The fraction of word pieces that are not in the vocabulary."""
    pieces = model.preprocessor.tokenize(captions)
    real = np.array(pieces["padding_mask"]).astype(bool)
    unknown = model.preprocessor.vocabulary.index("[UNK]")
    return float(np.mean(np.array(pieces["token_ids"])[real] == unknown))
