"""Checks that the inputs of a run exist, before TensorFlow loads.

Only local files are checked. Remote addresses, TFDS sets and hub names are checked when they are
opened.
"""

from align_keras import paths
from align_keras.data import records
from align_keras.data.examples.opening import check_there
from align_keras.errors import concerning
from align_keras.evaluation.tasks.data import SplitData
from align_keras.preprocessing.tokenizer import read_vocabulary
from align_keras.runs import mixed_sources, trackers
from align_keras.runs.classification_settings import ClassificationSettings
from align_keras.runs.presets import check_model, check_tower
from align_keras.runs.pretraining_settings import PretrainSettings


def check_pretraining(settings: PretrainSettings) -> None:
    """Checks the shards, the vocabulary and the presets of a pretraining run.

    Raises:
        InputError: if an input is missing; names its setting.
    """
    data, model = settings.data, settings.model
    trackers.check_installed(settings.run.tracker)
    if model.model:
        with concerning("model"):
            check_model(model.model)
    for name in ("text_encoder", "image_encoder"):
        with concerning(name):
            check_tower(getattr(model, name))
    for name in ("train_data", "eval_data", "zero_shot_data"):
        pattern = getattr(data, name)
        if pattern and not pattern.startswith("tfds:") and not _has_address(pattern):
            with concerning(name):
                find = mixed_sources if name == "train_data" else records
                find.find_shards(pattern)
    if data.vocabulary and not paths.scheme(data.vocabulary):
        check_vocabulary(data.vocabulary)


def check_vocabulary(path: str) -> None:
    """Raises InputError unless the file is a valid vocabulary."""
    with concerning("vocabulary"):
        read_vocabulary(path)


def check_classification(settings: ClassificationSettings) -> None:
    """Checks the images and the model for fine-tuning a classifier.

    Raises:
        InputError: if an input is missing; names its setting.
    """
    trackers.check_installed(settings.run.tracker)
    with concerning("model"):
        check_model(settings.start.model)
    source = split_data(settings)
    with concerning("data"):
        check_there(source.source()[0])
    with concerning("train_data"):
        check_there(source.train_source()[0])


def split_data(settings: ClassificationSettings) -> SplitData:
    """The images to evaluate on and those to train on, not yet opened."""
    data = settings.data
    return SplitData(
        settings.start.task,
        data=data.data,
        split=data.split,
        images=data.images,
        select=data.select,
        train_data=data.train_data,
        train_split=data.train_split,
    )


def _has_address(pattern: str) -> bool:
    return any(map(paths.scheme, pattern.split(",")))
