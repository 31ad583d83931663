"""Checks that the folder of a preset exists, before TensorFlow loads."""

import os

from align_keras.errors import MissingInputError, Place

#: The file that describes a preset; Hugging Face and keras-hub use the same name.
CONFIG = "config.json"


def check_folder(preset: str) -> None:
    """Raises a MissingInputError if the folder of a preset does not exist."""
    if not os.path.isdir(preset):
        remedy = "give one, or hf://USER/MODEL, or kaggle://..."
        raise MissingInputError("no such folder", Place(preset), remedy)
