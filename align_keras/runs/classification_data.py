"""What a classifier is fine-tuned on: labelled images, checked before anything is trained."""

import json

import classification_tasks
import tensorflow as tf
from evaluation_data import of_training

from align_keras.evaluation import embedding
from align_keras.runs import checkpointing


class LabelledImages:
    """Training images with their classes: what they are is read once, at the start."""

    def __init__(self, settings, data):
        self.data, self.seed = data, settings.seed
        names = classification_tasks.read_class_names(settings, settings.task, data)
        found = [(example.where, example.label, example.class_name) for example in data]
        if not found:
            raise ValueError("--train-data: there is no image in it")
        names = names or sorted({own for _, _, own in found if own})
        self.classes = classification_tasks.Classes(settings.task, names)
        try:
            self.count = len([self.classes.label_of(*values) for values in found])
        except ValueError as error:
            raise of_training(error) from None
        if len(names) < 2:
            raise ValueError("--train-data: classification needs two classes at least")

    def read(self, epoch):
        """Encoded images and classes in the order of an epoch."""
        for example in self.data.shuffled(self.seed + epoch):
            label = self.classes.label_of(example.where, example.label, example.class_name)
            yield embedding.load_image(example), label

    def check_readable(self):
        """Raises ValueError with the place of the first image that does not decode."""
        for example in self.data:
            try:
                tf.io.decode_image(embedding.load_image(example))
            except tf.errors.InvalidArgumentError:
                raise ValueError(f"--train-data: {example.where}: does not decode") from None
            except ValueError as error:
                raise of_training(error) from None


def check_classes(classes, data):
    """Raises ValueError, before anything is trained, if an image to evaluate is of no class."""
    labels = [classes.label_of(one.where, one.label, one.class_name) for one in data]
    if not labels:
        raise ValueError("--data: there is no image in it")


def check_same_images(path, train):
    """Writes down what a run is trained on, or raises ValueError if that has changed."""
    found = {"images": train.count, "classes": train.classes.names}
    if not path.exists():
        checkpointing.write_whole(path, json.dumps(found) + "\n")
        return
    before = checkpointing.read_json(path, dict)
    if found != before:
        raise ValueError(
            f"--train-data: {train.count:,} images of {len(train.classes.names):,} classes, not "
            f"the {before['images']:,} of {len(before['classes']):,} that the run in {path.parent} "
            "began with; give those again, or another --workdir"
        )
