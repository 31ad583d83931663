"""ALIGN (Jia et al., 2021) in Keras 3 and TensorFlow."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"align_keras needs Keras's TensorFlow backend, not {keras.backend.backend()}; "
        "set KERAS_BACKEND=tensorflow"
    )

from align_keras.backbone import AlignBackbone, build_backbone
from align_keras.dual_encoder import AlignDualEncoder
from align_keras.image_classifier import AlignImageClassifier
from align_keras.image_encoder import ImageEncoder, build_image_encoder
from align_keras.layerwise_sgd import LayerwiseSGD
from align_keras.optimizers import Lamb, WarmupLinearDecay
from align_keras.preprocessor import AlignPreprocessor
from align_keras.text_encoder import TextEncoder, build_text_encoder
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
