"""Whether the folder of a preset is there, checked before TensorFlow loads."""

import os

from align_keras.errors import MissingInputError, Place

#: The file that says what a preset is, by Hugging Face's name as by keras-hub's.
CONFIG = "config.json"


def check_folder(preset: str) -> None:
    """Raises a MissingInputError unless a preset that is neither a name nor an address is there."""
    if not os.path.isdir(preset):
        remedy = "give one, or hf://USER/MODEL, or kaggle://..."
        raise MissingInputError("no such folder", Place(preset), remedy)
