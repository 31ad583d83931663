"""Small checkpoints in Hugging Face's layout."""

import json

import keras_hub
import numpy as np

from align_keras import AlignBackbone, AlignDualEncoder, AlignPreprocessor, ImageEncoder
from align_keras.models.conversion import config as configs
from align_keras.models.text_encoder import TextEncoder


def small_model(pieces, approximate_gelu=True, antialias=True, sequence_length=12):
    """Returns an untrained model that the layout can express; its statistics are not initial."""
    backbone, _ = configs.vision_arguments({"width_coefficient": 0.5, "depth_coefficient": 0.5})
    tower = ImageEncoder(
        keras_hub.models.EfficientNetBackbone(**backbone), first_block_residuals=False
    )
    bert = keras_hub.models.BertBackbone(
        vocabulary_size=len(pieces),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=sequence_length,
    )
    model = AlignDualEncoder(
        AlignBackbone(tower, TextEncoder(bert, approximate_gelu), 160),
        AlignPreprocessor(pieces, 33, 40, sequence_length, antialias=antialias),
        initial_temperature=0.07,
    )
    rng = np.random.default_rng(0)
    for variable in model.backbone.weights:
        noise = rng.uniform(0.5, 1.5, variable.shape)
        variable.assign(variable.numpy() * noise + (noise - 1.0) * 0.1)
    return model


def change(file, **values):
    """Changes values in a JSON file; ``__`` in a name separates levels."""
    content = json.loads(file.read_text())
    for name, value in values.items():
        *outer, inner = name.split("__")
        place = content
        for part in outer:
            place = place[part]
        place[inner] = value
    file.write_text(json.dumps(content))
