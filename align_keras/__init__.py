"""ALIGN (Jia et al., 2021) in Keras 3 and TensorFlow."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"align_keras needs Keras's TensorFlow backend, not {keras.backend.backend()}; "
        "set KERAS_BACKEND=tensorflow"
    )

from align_keras.models.backbone import AlignBackbone, build_backbone
from align_keras.models.dual_encoder import AlignDualEncoder
from align_keras.models.image_classifier import AlignImageClassifier
from align_keras.models.image_encoder import ImageEncoder, build_image_encoder
from align_keras.models.text_encoder import TextEncoder, build_text_encoder
from align_keras.optimizers.lamb import Lamb
from align_keras.optimizers.layerwise_sgd import LayerwiseSGD
from align_keras.optimizers.schedules import WarmupLinearDecay
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.version import __version__

__all__ = [
    "AlignBackbone",
    "AlignDualEncoder",
    "AlignImageClassifier",
    "AlignPreprocessor",
    "ImageEncoder",
    "Lamb",
    "LayerwiseSGD",
    "TextEncoder",
    "WarmupLinearDecay",
    "__version__",
    "build_backbone",
    "build_image_encoder",
    "build_text_encoder",
]
