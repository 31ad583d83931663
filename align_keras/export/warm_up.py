"""Warm-up requests: TF Serving runs them when it starts, so that the first real request is fast."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from align_keras.errors import InputError

PATH = "assets.extra/tf_serving_warmup_requests"


def write_requests(folder: Path, specs: Mapping[str, tf.TensorSpec], image_size: int) -> None:
    """Writes one request for each signature.

    Args:
        folder: folder of the SavedModel.
        specs: the input of each signature, ``tf.TensorSpec`` by name.
        image_size: side of the example image, in pixels.

    Raises:
        InputError: if ``tensorflow-serving-api`` is not installed.
    """
    prediction_log_pb2 = import_apis()
    path = folder / PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for name, spec in specs.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = name
            example = _example(spec, image_size)
            request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(example))
            file.write(log.SerializeToString())


def import_apis() -> Any:
    """The module with the format of the requests; InputError, with a remedy, if it is missing."""
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise InputError(
            "warm-up requests need tensorflow-serving-api",
            remedy="pip install 'align-keras[serving]', or turn <warm_up> off",
            setting="warm_up",
        ) from error
    return prediction_log_pb2


def _example(spec: tf.TensorSpec, image_size: int) -> np.ndarray:
    """A batch of one example."""
    pixels = np.full((image_size, image_size, 3), 128, np.uint8)
    if spec.dtype == tf.uint8:
        return pixels[None]
    if spec.name == "captions":
        return np.array([b"a photo of a dog"])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return np.array([buffer.getvalue()])
