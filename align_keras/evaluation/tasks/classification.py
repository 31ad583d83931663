"""Classifies images: zero-shot, by nearest neighbours, by a linear probe."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from align_keras import lazy, progress
from align_keras.data.examples import ExampleSet
from align_keras.errors import InputError, concerning
from align_keras.evaluation import data_sets, probes, zero_shot
from align_keras.evaluation.tasks.classes import Labelled, embed_labelled, read_class_names
from align_keras.evaluation.tasks.data import ImageData, SplitData
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
    from align_keras.evaluation import confusion, embedding, sheets
    from align_keras.preprocessing.preprocessor import AlignPreprocessor
else:
    confusion = lazy.Module("align_keras.evaluation.confusion")
    embedding = lazy.Module("align_keras.evaluation.embedding")
    sheets = lazy.Module("align_keras.evaluation.sheets")


@dataclasses.dataclass(frozen=True)
class ZeroShot(ImageData):
    """Top-1, top-5 and mean per-class accuracy, from prompts with class names."""

    kind: ClassVar[str] = "zero_shot"
    prompts: tuple[str, ...] = ()
    """Strings with ``{}`` for the class name; empty for CLIP's prompts of the data set."""
    class_names: str = ""
    """A text file with one name per line; empty for CLIP's names of the data set, or the data's
    own.
    """
    cache: str = ""
    """A folder for cached embeddings of classes; empty for none."""
    batch_size: int = 64

    def open(self) -> ExampleSet:
        """Opens the images; raises InputError if there are no images or no classes."""
        data = super().open()
        with concerning("data"):
            data.check_classes()
        return data

    def run(self, model: Any, data: ExampleSet, output: AnyPath) -> Result:
        """Embeds images and prompts, and draws; InputError if an image has an unknown class."""
        prompts = self.prompts or data_sets.prompts_of(self.name)
        with concerning("prompts"):
            zero_shot.fill_prompts([], prompts)
        with concerning("data"):
            names = read_class_names(self.name, self.class_names, data)
            images = embed_labelled(
                self.name, data, model.encode_images, model.preprocessor, self.batch_size, names
            )
            if len(images.class_names) < 2:
                raise InputError("zero-shot classification needs at least two classes")
        if data_sets.known(self.name).only_present:
            present, images.labels = np.unique(images.labels, return_inverse=True)
            images.class_names = [images.class_names[place] for place in present]
        classes = embedding.class_weights(model, images.class_names, prompts, self.cache)
        title = f"{counted(len(images.class_names), 'class')}, " + (
            f"prompt {prompts[0]!r}" if len(prompts) == 1 else f"{len(prompts):,} prompts"
        )
        scores = images.features @ classes.T
        result = classification_result(self.kind, self.name, title, scores, images, data, output)
        # The contrastive loss takes the softmax of these logits.
        result.outcomes["confidence"] = zero_shot.confidence(scores / float(model.temperature))
        return result


@dataclasses.dataclass(frozen=True)
class Probe(SplitData):
    """Classifies by training images, which must not be those of the evaluation."""

    class_names: str = ""
    """As in ``ZeroShot``."""
    batch_size: int = 64

    def embed(
        self,
        data: tuple[ExampleSet, ExampleSet],
        encode: "embedding.Encode",
        preprocessor: "AlignPreprocessor",
    ) -> tuple[Labelled, Labelled]:
        """Embeds the test and training images, with the same classes."""
        test, train = data
        how = encode, preprocessor, self.batch_size
        with concerning("train_data"):
            names = read_class_names(self.name, self.class_names, train)
            trained = embed_labelled(self.name, train, *how, names)
        with concerning("data"):
            return embed_labelled(self.name, test, *how, trained.class_names), trained


@dataclasses.dataclass(frozen=True)
class NearestNeighbours(Probe):
    """The paper's KNN: whether one of the nearest training images has the same class."""

    kind: ClassVar[str] = "knn"

    def run(self, model: Any, data: tuple[ExampleSet, ExampleSet], output: AnyPath) -> Result:
        """Embeds both parts; raises InputError if an image or its class cannot be used."""
        images, train = self.embed(data, model.encode_images, model.preprocessor)
        with concerning("train_data"):
            ranks = probes.nearest_neighbour_ranks(
                images.features, images.labels, train.features, train.labels
            )
        metrics, chance = probes.nearest_neighbour_recall(ranks, images.labels, train.labels)
        return Result(
            self.kind,
            f"{self.name}: {describe_images(len(images.labels), data[0])}, "
            f"{describe_images(len(train.labels), data[1], 'training image')}, "
            f"{counted(len(train.class_names), 'class')}",
            metrics,
            chance,
            outcomes={"knn_rank": ranks, **labels_of(images)},
        )


@dataclasses.dataclass(frozen=True)
class LinearProbe(Probe):
    """A linear layer on the image tower's frozen features."""

    kind: ClassVar[str] = "linear_probe"
    seed: int = 0
    """Decides the order of the training images."""

    def run(self, model: Any, data: tuple[ExampleSet, ExampleSet], output: AnyPath) -> Result:
        """Embeds both parts, trains the layer and draws; InputError as in ``NearestNeighbours``."""
        images, train = self.embed(data, model.encode_image_features, model.preprocessor)
        weights, bias = probes.fit_linear_probe(
            train.features, train.labels, len(train.class_names), seed=self.seed
        )
        images_in_all = describe_images(len(train.labels), data[1], "training image")
        title = f"{images_in_all}, {counted(len(train.class_names), 'class')}"
        scores = images.features @ weights + bias
        result = classification_result(self.kind, self.name, title, scores, images, data[0], output)
        result.paper_prefix = "linear_probe_"
        return result


def classification_result(
    kind: str,
    name: str,
    title: str,
    scores: np.ndarray,
    images: Labelled,
    data: ExampleSet,
    output: AnyPath,
) -> Result:
    """Metrics of the scores, the most confused classes, a confusion matrix and some predictions.

    Args:
        kind: kind of the task; the names of the pictures begin with it.
        name: name of the data set.
        title: title of the table, printed after the number of images.
        scores: scores, ``(images, classes)``; their softmax is the model's confidence.
        images: the images with their labels.
        data: the same images, to be drawn.
        output: folder of the pictures.
    """
    metrics, chance = zero_shot.classification_metrics(scores, images.labels)
    predictions = scores.argmax(axis=1)
    matrix = zero_shot.confusion_matrix(predictions, images.labels, len(images.class_names))
    pictures = [f"{kind}-{name}-confusion.png", f"{kind}-{name}-images.png"]
    rows = some_right_and_wrong(predictions == images.labels, 32)
    with progress.working("drawing pictures"):
        confusion.draw_confusion(output / pictures[0], matrix, images.class_names)
        sheets.draw_predictions(
            output / pictures[1],
            pictures_of(data, rows),
            [images.class_names[label] for label in images.labels[rows]],
            [images.class_names[label] for label in predictions[rows]],
        )
    return Result(
        {"zero_shot": "zeroshot_classification"}.get(kind, kind),
        f"{name}: {describe_images(len(images.labels), data)}, {title}",
        metrics,
        chance,
        pictures,
        list(filter(None, [confusion.format_confused(matrix, images.class_names)])),
        outcomes={
            "rank": zero_shot.class_ranks(scores, images.labels),
            "predicted": predictions,
            "confidence": zero_shot.confidence(scores),
            **labels_of(images),
        },
    )


def labels_of(images: Labelled) -> dict[str, np.ndarray]:
    """Outcomes that identify the evaluated images: labels, class names and a digest."""
    return {
        "label": images.labels,
        "class_names": np.array(images.class_names, str),
        "queries": query_digest(images.labels.tolist(), images.class_names),
    }
