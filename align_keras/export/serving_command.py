"""The command that serves an exported SavedModel."""

import shlex

from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath


def serving_command(folder: AnyPath) -> str:
    """The command that serves a SavedModel with TensorFlow Serving in Docker.

    Args:
        folder: folder of the SavedModel. Its name must be a version number; the parent folder has
            the name of the model.

    Returns:
        The command; if the folder's name is not a number, a message that asks for one.
    """
    if not folder.name.isdecimal():
        return "TensorFlow Serving needs a number as the folder's name, such as EXPORTED/photos/1"
    model = folder.resolve().parent
    name = shlex.quote(model.name)
    start = f"docker run --rm -p 8500:8500 -p 8501:8501 -e MODEL_NAME={name} \\\n"
    if isinstance(folder, RemotePath):
        base = shlex.quote(str(model.parent))
        return f"{start}    -e MODEL_BASE_PATH={base} tensorflow/serving"
    return f"{start}    -v {shlex.quote(f'{model}:/models/{model.name}')} tensorflow/serving"
