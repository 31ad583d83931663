"""The tasks of ``evaluate.py``: each opens its data, embeds, scores and draws."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from align_keras import reporting
from align_keras.evaluation import data_sets, embedding, examples, probes, report, retrieval
from align_keras.evaluation import zero_shot as metrics_of


@dataclasses.dataclass
class Result:
    """What a task found: figures under the names of the JSON."""

    task: str
    title: str
    metrics: dict
    chance: dict
    pictures: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)
    paper_prefix: str = ""
    """Of the names of the paper's figures where another task has the same names."""

    def paper(self, figures):
        """Those of the paper's figures that stand beside these."""
        return {name: figures.get(self.paper_prefix + name) for name in self.metrics}


@dataclasses.dataclass(frozen=True)
class Task:
    """Opens its data, then runs on it with a model."""

    open: Callable
    run: Callable


def parse_task(task):
    """``retrieval:coco`` -> ``("retrieval", "coco")``; ValueError on what is no task."""
    kind, _, name = task.partition(":")
    if kind not in TASKS:
        raise ValueError(f"--task: no {kind!r}; choose one of {', '.join(TASKS)}, as in {_EXAMPLE}")
    if kind in _NAMELESS:
        return kind, name or kind
    if not name:
        raise ValueError(f"--task: {kind} needs a data set, as in {kind}:{_EXAMPLE[-4:]}")
    return kind, name


_EXAMPLE = "retrieval:coco"
_NAMELESS = ("crisscrossed", "multi30k")


def open_data(settings, name, part="evaluation"):
    """The examples of a data set: those of --data or else of TFDS."""
    known = data_sets.DATA_SETS.get(name, data_sets.DataSet())
    train = part == "training"
    flag = "--train-data" if train else "--data"
    data = (settings.train_data if train else "") or settings.data
    split = settings.train_split if train else settings.split
    if not data and not known.tfds:
        where = "TFDS does not have it" if name in data_sets.DATA_SETS else "it is not a known name"
        raise ValueError(f"{flag}: give the data of {name}; {where}")
    if not data or (data.startswith("tfds:") and not split):
        # TFDS names its splits; tables and folders go by test and train.
        split = split or (known.train_split if train else known.split)
    if train and not settings.train_data:
        split = split or "train"
    return examples.open_examples(
        data or f"tfds:{known.tfds}", split, settings.images, settings.select
    )


def pictures_of(data, rows, preprocessor):
    """The cropped images of some rows, 0 .. 1, by a second look into the data."""
    wanted = set(np.asarray(rows).ravel().tolist())
    found, ids = {}, {}
    for example in data:
        row = ids.setdefault(example.image_id, len(ids))
        if row in wanted and row not in found:
            image = preprocessor.decode_image(tf.constant(embedding.load_image(example)))
            found[row] = preprocessor.unscale(image)
            if len(found) == len(wanted):
                break
    return np.stack([found[row] for row in np.asarray(rows).ravel().tolist()])


def some_right_and_wrong(right, number):
    """Rows spread evenly over those that are right, then over those that are wrong."""
    chosen = []
    for rows in (np.flatnonzero(right), np.flatnonzero(~right)):
        take = min(number - number // 2, len(rows))
        chosen.extend(rows[np.linspace(0, len(rows) - 1, take).astype(int)].tolist())
    return np.array(chosen[:number], int)


# === Retrieval ===


def run_retrieval(settings, name, model, data, output):
    """Recalls of both directions, median ranks and mean recall; a sheet of what is found."""
    pairs = embedding.embed_pairs(model, data, settings.batch_size)
    values = pairs.images, pairs.texts, pairs.image_of_text
    metrics, chance = retrieval.full_metrics(*values)
    fold_size = settings.fold_size or data_sets.DATA_SETS.get(name, data_sets.DataSet()).fold_size
    notes = []
    if fold_size and len(pairs.images) >= 2 * fold_size:
        folds, fold_chance = retrieval.full_metrics(*values, fold_size)
        notes.append(
            report.format_table(
                f"mean over folds of {fold_size:,} images",
                report.clip_benchmark_names(folds),
                report.clip_benchmark_names(fold_chance),
                {},
            )
        )
        metrics |= {f"{fold_size}_fold_{name}": value for name, value in folds.items()}
    draw_retrievals(output / f"retrieval-{name}.png", pairs, data, model.preprocessor)
    return Result(
        "zeroshot_retrieval",
        f"{name}: {len(pairs.images):,} images, {len(pairs.texts):,} captions",
        report.clip_benchmark_names(metrics),
        report.clip_benchmark_names(chance),
        [f"retrieval-{name}.png"],
        notes,
    )


def draw_retrievals(path, pairs, data, preprocessor, rows=8, columns=6):
    """Captions whose image comes first, then captions whose does not, with what is found."""
    ranks = retrieval.best_positive_ranks(
        pairs.texts, pairs.images, pairs.image_of_text, np.arange(len(pairs.images))
    )
    asked = some_right_and_wrong(ranks == 0, rows)
    columns = min(columns, len(pairs.images))
    scores = pairs.texts[asked] @ pairs.images.T
    best = np.argsort(-scores, axis=1)[:, :columns]
    pictures = pictures_of(data, best, preprocessor)
    path.parent.mkdir(parents=True, exist_ok=True)
    reporting.draw_retrievals(
        path,
        [f"{pairs.captions[row]}\n[its image: rank {ranks[row] + 1}]" for row in asked],
        pictures.reshape(*best.shape, *pictures.shape[1:]),
        best == pairs.image_of_text[asked][:, None],
        np.take_along_axis(scores, best, axis=1),
    )


# === Classification ===


@dataclasses.dataclass
class Labelled:
    """Features and classes of a data set's images."""

    features: np.ndarray
    labels: np.ndarray
    class_names: list


def embed_labelled(settings, name, data, encode, class_names=None):
    """Embeds images and finds their classes; ValueError names an image without."""
    names = class_names or read_class_names(settings, name, data)
    found = []

    def labelled():
        for example in data:
            found.append((example.where, example.label, example.class_name))
            yield example

    features = embedding.embed_images(encode, labelled(), settings.batch_size)
    if names is None:
        names = sorted({own for _, _, own in found if own})
    places = {own: place for place, own in reversed(list(enumerate(names)))}
    if list(names) == data_sets.class_names_of("imagenet"):
        places |= {wnid: place for place, wnid in enumerate(data_sets.imagenet_wnids())}
    labels = []
    for where, label, own in found:
        place = label if label is not None else places.get(own)
        if place is None or not 0 <= place < len(names):
            raise ValueError(
                f"--data: {where}: its class ({own or label}) is none of the {len(names):,} of "
                f"{name}; give --class-names, or data with class_name or label"
            )
        labels.append(place)
    return Labelled(features, np.array(labels), list(names))


def read_class_names(settings, name, data):
    """Class names from --class-names, of the known data set, or of the data; None if there are
    none before the data is read."""
    if settings.class_names:
        path = Path(settings.class_names)
        if not path.is_file():
            raise FileNotFoundError(f"--class-names: no file {path}")
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    return data_sets.class_names_of(name) or data.class_names


def run_zero_shot(settings, name, model, data, output):
    """Top-1, top-5 and mean per-class accuracy with prompts for class names."""
    prompts = settings.prompts or data_sets.prompts_of(name)
    metrics_of.fill_prompts([], prompts)
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
    metrics, chance = metrics_of.classification_metrics(scores, images.labels)
    predictions = scores.argmax(axis=1)
    matrix = metrics_of.confusion_matrix(predictions, images.labels, len(images.class_names))
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
    """The images to evaluate and those to train on."""
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


TASKS = {
    "retrieval": Task(open_data, run_retrieval),
    "zero_shot": Task(open_data, run_zero_shot),
    "knn": Task(open_probe, run_knn),
    "linear_probe": Task(open_probe, run_linear_probe),
}
