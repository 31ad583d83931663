"""Searches images by captions and captions by images."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from align_keras import lazy, progress
from align_keras.data.examples import ExampleSet
from align_keras.errors import concerning
from align_keras.evaluation import data_sets, retrieval
from align_keras.evaluation.tasks.data import ImageData
from align_keras.evaluation.tasks.result import (
    Result,
    describe_images,
    pictures_of,
    query_digest,
    some_right_and_wrong,
)
from align_keras.paths import AnyPath
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.evaluation import embedding, report, sheets
else:
    embedding = lazy.Module("align_keras.evaluation.embedding")
    report = lazy.Module("align_keras.evaluation.report")
    sheets = lazy.Module("align_keras.evaluation.sheets")


@dataclasses.dataclass(frozen=True)
class Retrieval(ImageData):
    """Recalls in both directions, median ranks and mean recall; draws a sheet for each."""

    kind: ClassVar[str] = "retrieval"
    batch_size: int = 64
    fold_size: int = 0
    """Images per fold, to report the mean over folds as well; 0 for the data set's default."""

    def open(self) -> ExampleSet:
        """Opens the images; raises InputError if there are no images or no captions."""
        data = super().open()
        with concerning("data"):
            data.check_captions()
        return data

    def run(self, model: Any, data: ExampleSet, output: AnyPath) -> Result:
        """Embeds all images and captions, and ranks; InputError if an image has no caption."""
        with concerning("data"):
            pairs = embedding.embed_pairs(model, data, self.batch_size)
        values = pairs.images, pairs.texts, pairs.image_of_text
        ranks = retrieval.cross_modal_ranks(*values)
        metrics, chance = retrieval.metrics_of_ranks(ranks, pairs.image_of_text)
        shared = retrieval.count_shared_captions(pairs.captions, pairs.image_of_text)
        result = Result(
            "zeroshot_retrieval",
            f"{self.name}: {describe_images(len(pairs.images), data)}, "
            f"{counted(len(pairs.texts), 'caption')}",
            metrics,
            chance,
            [f"retrieval-{self.name}.png", f"retrieval-{self.name}-captions.png"],
            remark=_remark(shared, len(pairs.captions)),
            outcomes={
                "i2t_rank": ranks["i2t"],
                "t2i_rank": ranks["t2i"],
                "t2i_group": pairs.image_of_text,
                "queries": query_digest(pairs.captions, pairs.image_of_text.tolist()),
            },
        )
        fold_size = self.fold_size or data_sets.known(self.name).fold_size
        if fold_size and len(pairs.images) >= 2 * fold_size:
            result.folds, fold_chance = retrieval.full_metrics(*values, fold_size)
            title = f"mean over folds of {fold_size:,} images"
            result.notes.append(report.format_table(title, result.folds, fold_chance, {}))
        with progress.working("drawing pictures"):
            draw_retrievals(output / result.pictures[0], pairs, ranks["t2i"], data)
            draw_captions(output / result.pictures[1], pairs, ranks["i2t"], data)
        return result


def _remark(shared: int, total: int) -> str:
    """Says why R@1 cannot reach 100 %, and what to do; empty if it can."""
    shown = retrieval.describe_shared_captions(shared, total)
    return shown and f"{shown} For captions that are class names, use --task=zero_shot:NAME."


def draw_retrievals(
    path: AnyPath,
    pairs: "embedding.Pairs",
    ranks: np.ndarray,
    data: ExampleSet,
    rows: int = 8,
    columns: int = 6,
) -> None:
    """Draws captions whose image ranks first, then captions whose image does not rank first.

    Args:
        path: path of the PNG.
        pairs: the embedded pairs.
        ranks: ranks of each caption's image, ``(texts,)``.
        data: the same images, to be drawn.
        rows: maximum number of captions.
        columns: maximum number of images per caption.
    """
    asked = some_right_and_wrong(ranks == 0, rows)
    scores = pairs.texts[asked] @ pairs.images.T
    best = np.argsort(-scores, axis=1)[:, :columns]
    pictures = pictures_of(data, best)
    width = best.shape[1]
    sheets.draw_retrievals(
        path,
        [pairs.captions[row] for row in asked],
        [pictures[width * row : width * (row + 1)] for row in range(len(asked))],
        best == pairs.image_of_text[asked][:, None],
        np.take_along_axis(scores, best, axis=1),
        ranks[asked],
        len(pairs.images),
    )


def draw_captions(
    path: AnyPath,
    pairs: "embedding.Pairs",
    ranks: np.ndarray,
    data: ExampleSet,
    rows: int = 8,
    columns: int = 5,
) -> None:
    """Draws images whose caption ranks first, then images whose caption does not rank first.

    Args:
        path: path of the PNG.
        pairs: the embedded pairs.
        ranks: rank of each image's best own caption, ``(images,)``.
        data: the same images, to be drawn.
        rows: maximum number of images.
        columns: maximum number of captions per image.
    """
    asked = some_right_and_wrong(ranks == 0, rows)
    scores = pairs.images[asked] @ pairs.texts.T
    best = np.argsort(-scores, axis=1)[:, :columns]
    sheets.draw_captions(
        path,
        pictures_of(data, asked),
        [[pairs.captions[place] for place in own] for own in best],
        pairs.image_of_text[best] == asked[:, None],
        np.take_along_axis(scores, best, axis=1),
        ranks[asked],
        len(pairs.texts),
    )
