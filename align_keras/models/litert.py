"""Runs the towers in LiteRT: faster than TensorFlow on a CPU, above all for single items."""

import importlib
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align_keras import lazy
from align_keras.errors import InputError
from align_keras.preprocessing.fields import TEXT_INPUTS

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from align_keras.models.backbone import AlignBackbone
else:
    keras = lazy.Module("keras")

#: Libraries that can compute embeddings.
RUNTIMES = ("tensorflow", "litert")


def check_runtime(runtime: str) -> None:
    """Raises an InputError unless a runtime is one of ``RUNTIMES`` and is installed."""
    if runtime not in RUNTIMES:
        raise InputError(f"unknown runtime {runtime!r}", remedy=f"give {' or '.join(RUNTIMES)}")
    if runtime == "tensorflow":
        return
    try:
        importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise InputError(
            f"LiteRT cannot be imported ({error})", remedy="pip install 'align-keras[litert]'"
        ) from error


class LiteRTTowers:
    """Both towers of a backbone, converted to LiteRT.

    A tower is converted when it is first used, the image tower once for each image size. This takes
    seconds for EfficientNet-B0. The converted towers do not follow later changes of the weights.
    Several threads may use one object: their calls take turns.

    Args:
        backbone: an ``AlignBackbone`` that computes in float32.
        num_threads: threads per tower; by default one for each core that this process may use.

    Raises:
        InputError: if LiteRT is not installed, or the backbone computes in another precision.
    """

    def __init__(self, backbone: "AlignBackbone", num_threads: int | None = None) -> None:
        check_runtime("litert")
        if backbone.compute_dtype != "float32":
            raise InputError(
                f"LiteRT needs float32, but the model computes in {backbone.compute_dtype}",
                remedy="load it with dtype='float32'",
            )
        self._backbone = backbone
        self._num_threads = num_threads or _usable_cores()
        self._lock = threading.Lock()
        self._towers: dict[tuple, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {}

    def image_features(self, images: "tf.Tensor") -> np.ndarray:
        """The image tower's features before the projection.

        Args:
            images: scaled pixels, float32, ``(batch, height, width, 3)``.

        Returns:
            float32, ``(batch, width of the tower)``.
        """
        shape = tuple(images.shape[1:])

        def build() -> tuple[Any, Any]:
            inputs = keras.Input(shape, name="images")
            return inputs, self._backbone.image_encoder(inputs, training=False)

        return self._run(("images", shape), build, {"images": np.asarray(images)})

    def text_embeddings(self, pieces: Mapping[str, "tf.Tensor"]) -> np.ndarray:
        """The embeddings of captions.

        Args:
            pieces: ``token_ids``, ``segment_ids`` and ``padding_mask``, ``(batch, sequence)``.

        Returns:
            float32, ``(batch, projection_dim)``, of unit norm.
        """

        def build() -> tuple[Any, Any]:
            inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in TEXT_INPUTS}
            return inputs, self._backbone.encode_texts(inputs)

        given = {name: np.asarray(pieces[name], "int32") for name in TEXT_INPUTS}
        return self._run(("texts",), build, given)

    def _run(
        self,
        key: tuple,
        build: Callable[[], tuple[Any, Any]],
        inputs: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        with self._lock:
            if key not in self._towers:
                inputs_of_tower, output = build()
                tower = keras.Model(inputs_of_tower, {"output": output}, name=key[0])
                self._towers[key] = _converted(tower, self._num_threads)
            return self._towers[key](inputs)


def _converted(
    tower: "keras.Model", num_threads: int
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Converts a Keras model; returns a function that runs it on a batch in LiteRT."""
    interpreter = importlib.import_module("ai_edge_litert.interpreter")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.tflite"
        signature = [keras.tree.map_structure(any_batch, tower.input)]
        tower.export(path, "litert", verbose=False, input_signature=signature)
        content = path.read_bytes()
    runner = interpreter.Interpreter(
        model_content=content, num_threads=num_threads
    ).get_signature_runner()
    names = tuple(runner.get_input_details())
    return lambda inputs: runner(**{name: inputs[name] for name in names})["output"]


def any_batch(tensor: Any) -> "keras.InputSpec":
    """The signature of a Keras input with any number of rows, for ``keras.Model.export``."""
    return keras.InputSpec(tensor.dtype, (None, *tensor.shape[1:]), name=tensor.name)


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
