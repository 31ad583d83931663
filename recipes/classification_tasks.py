"""The tasks of ``evaluate.py`` that classify: zero-shot, nearest neighbours, linear probe.

``finetune_classification.py`` reads its data and reports as these do.
"""

import dataclasses
from pathlib import Path

import numpy as np
from evaluation_data import Result, open_data, pictures_of, some_right_and_wrong, source_of

from align_keras.evaluation import data_sets, embedding, probes, report, zero_shot


@dataclasses.dataclass
class Labelled:
    """Features and classes of a data set's images."""

    features: np.ndarray
    labels: np.ndarray
    class_names: list


class Classes:
    """The classes of a data set.

    Args:
        name: of the data set.
        names: of the classes, in the order of the labels.
    """

    def __init__(self, name, names):
        self.name, self.names = name, list(names)
        self._places = {own: place for place, own in reversed(list(enumerate(names)))}
        if self.names == data_sets.class_names_of("imagenet"):
            self._places |= {wnid: place for place, wnid in enumerate(data_sets.imagenet_wnids())}

    def label_of(self, where, label, own):
        """The label of an example, an integer; ValueError if it is of none of the classes."""
        place = label if label is not None else self._places.get(own)
        if place is None or not 0 <= place < len(self.names):
            raise ValueError(
                f"--data: {where}: its class ({own or label}) is none of the {len(self.names):,} "
                f"of {self.name}; give --class-names, or data with class_name or label"
            )
        return place


def embed_labelled(settings, name, data, encode, class_names=None):
    """Embeds images and finds their classes; ValueError names an image without."""
    names = class_names or read_class_names(settings, name, data)
    found = []

    def labelled():
        for example in data:
            found.append((example.place, example.label, example.class_name))
            yield example

    features = embedding.embed_images(encode, labelled(), settings.batch_size)
    if names is None:
        names = sorted({own for _, _, own in found if own})
    classes = Classes(name, names)
    labels = [classes.label_of(*values) for values in found]
    return Labelled(features, np.array(labels), classes.names)


def read_class_names(settings, name, data):
    """Class names from --class-names, of the known data set or of the data, None without."""
    if settings.class_names:
        return read_names(settings.class_names)
    return data_sets.class_names_of(name) or data.class_names


def read_names(path):
    """The lines of the file of --class-names that are not empty."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--class-names: no file {path}")
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"--class-names: {path} is not UTF-8; convert it") from None
    return [line.strip() for line in lines if line.strip()]


def run_zero_shot(settings, name, model, data, output):
    """Top-1, top-5 and mean per-class accuracy with prompts for class names."""
    prompts = settings.prompts or data_sets.prompts_of(name)
    zero_shot.fill_prompts([], prompts)
    images = embed_labelled(settings, name, data, model.encode_images)
    if len(images.class_names) < 2:
        raise ValueError("--data: zero-shot classification needs two classes at least")
    if data_sets.DATA_SETS.get(name, data_sets.DataSet()).only_present:
        present, images.labels = np.unique(images.labels, return_inverse=True)
        images.class_names = [images.class_names[place] for place in present]
    classes = embedding.class_weights(model, images.class_names, prompts, settings.cache)
    title = f"{len(images.class_names):,} classes, {len(prompts):,} prompts each"
    return classification_result(
        "zero_shot", name, title, images.features @ classes.T, images, data, model, output
    )


def classification_result(kind, name, title, scores, images, data, model, output):
    """The figures and pictures of scores ``(images, classes)``."""
    metrics, chance = zero_shot.classification_metrics(scores, images.labels)
    predictions = scores.argmax(axis=1)
    matrix = zero_shot.confusion_matrix(predictions, images.labels, len(images.class_names))
    pictures = [f"{kind}-{name}-confusion.png", f"{kind}-{name}-images.png"]
    report.draw_confusion(output / pictures[0], matrix, images.class_names)
    rows = some_right_and_wrong(predictions == images.labels, 32)
    report.draw_predictions(
        output / pictures[1],
        pictures_of(data, rows, model.preprocessor),
        [images.class_names[label] for label in images.labels[rows]],
        [images.class_names[label] for label in predictions[rows]],
    )
    return Result(
        {"zero_shot": "zeroshot_classification"}.get(kind, kind),
        f"{name}: {len(images.labels):,} images, {title}",
        report.clip_benchmark_names(metrics),
        report.clip_benchmark_names(chance),
        pictures,
    )


def open_probe(settings, name):
    """The images to evaluate and those to train on, which must be others."""
    data, split = source_of(settings, name)
    if (data, split) == source_of(settings, name, "training"):
        raise ValueError(
            f"--train-split: {data} {split} would be trained and tested on; give another split, or "
            "--train-data"
        )
    return open_data(settings, name), open_data(settings, name, "training")


def embed_both(settings, name, data, encode):
    """The two parts of a probe's data, with the same classes."""
    train = embed_labelled(settings, name, data[1], encode)
    images = embed_labelled(settings, name, data[0], encode, train.class_names)
    return images, train


def run_knn(settings, name, model, data, output):
    """The paper's KNN: the class among those of the nearest training images."""
    images, train = embed_both(settings, name, data, model.encode_images)
    metrics, chance = probes.nearest_neighbour_recall(
        images.features, images.labels, train.features, train.labels
    )
    return Result(
        "knn",
        f"{name}: {len(images.labels):,} images, {len(train.labels):,} training images, "
        f"{len(train.class_names):,} classes",
        report.clip_benchmark_names(metrics),
        report.clip_benchmark_names(chance),
    )


def run_linear_probe(settings, name, model, data, output):
    """A linear layer on the image tower's frozen features."""
    images, train = embed_both(settings, name, data, embedding.feature_encoder(model))
    weights, bias = probes.fit_linear_probe(
        train.features, train.labels, len(train.class_names), seed=settings.seed
    )
    title = f"{len(train.labels):,} training images, {len(train.class_names):,} classes"
    scores = images.features @ weights + bias
    result = classification_result(
        "linear_probe", name, title, scores, images, data[0], model, output
    )
    result.paper_prefix = "linear_probe_"
    return result
