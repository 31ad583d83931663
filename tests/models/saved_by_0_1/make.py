"""Writes ``files.zip``; run it with the version of align_keras that the folder is named after."""

import tempfile
import zipfile
from pathlib import Path

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from align_keras import (
    AlignBackbone,
    AlignDualEncoder,
    AlignImageClassifier,
    AlignPreprocessor,
    ImageEncoder,
    Lamb,
    LayerwiseSGD,
    TextEncoder,
)

ARCHIVE = Path(__file__).with_name("files.zip")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "ring", "##s"]
CAPTIONS = ["a red ring", "blue rings"]
#: One block of each kind that keras-hub has.
EFFICIENTNET = {
    "stackwise_width_coefficients": [0.25] * 3,
    "stackwise_depth_coefficients": [1.0] * 3,
    "stackwise_kernel_sizes": [3] * 3,
    "stackwise_num_repeats": [1] * 3,
    "stackwise_input_filters": [32] * 3,
    "stackwise_output_filters": [32] * 3,
    "stackwise_expansion_ratios": [1, 2, 1],
    "stackwise_strides": [1, 2, 1],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25, 0],
    "stackwise_block_types": ["v1", "unfused", "fused"],
    "stackwise_force_input_filters": [0] * 3,
    "stackwise_nores_option": [False] * 3,
    "dropout": 0.2,
}


def build(rng):
    """Builds a dual encoder of two tiny towers, with weights and statistics as after training."""
    towers = (
        ImageEncoder(keras_hub.models.EfficientNetBackbone(**EFFICIENTNET), name="image_encoder"),
        TextEncoder(
            keras_hub.models.BertBackbone(len(VOCABULARY), 1, 2, 8, 8, 0.1, max_sequence_length=6),
            name="text_encoder",
        ),
    )
    preprocessor = AlignPreprocessor(VOCABULARY, 16, 20, 6)
    model = AlignDualEncoder(AlignBackbone(*towers, 6), preprocessor, 0.2)
    for weight in model.weights:  # without the states of dropout
        weight.assign(weight.numpy() + rng.uniform(0.05, 0.5, weight.shape))
    return model


def write(folder):
    """Writes every kind of file, and the expected values, into a folder."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    model = build(rng)
    images = rng.integers(0, 256, (2, 24, 20, 3)).astype("uint8")
    model.compile(Lamb(0.01))
    pixels = model.preprocessor({"images": images, "captions": CAPTIONS})
    model.train_step(pixels)
    classifier = AlignImageClassifier(model.backbone.image_encoder, ["x", "y"], model.preprocessor)
    classifier.head.kernel.assign(rng.normal(size=classifier.head.kernel.shape))
    classifier.compile(LayerwiseSGD(0.1, factor=0.1))
    classifier.optimizer.build(classifier.trainable_variables)
    model.save(folder / "dual_encoder.keras")
    model.save_weights(folder / "dual_encoder.weights.h5")
    model.save_to_preset(folder / "preset")
    classifier.save(folder / "classifier.keras")
    checkpoint = tf.train.Checkpoint(
        model=model,
        optimizer=model.optimizer,
        seeds=[v.value for v in model.variables if "seed" in v.path],
    )
    checkpoint.write(str(folder / "checkpoint"))
    np.savez_compressed(
        folder / "expected.npz",
        images=images,
        captions=CAPTIONS,
        image_embeddings=model.encode_images(images),
        text_embeddings=model.encode_texts(CAPTIONS),
        logits=classifier.score(images),
        temperature=model.temperature,
        variables=[variable.path for variable in model.variables],
        sums=[np.float64(variable.numpy()).sum() for variable in model.variables],
        optimizer=[variable.path for variable in model.optimizer.variables],
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(Path(folder).rglob("*")):
                archive.write(path, path.relative_to(folder))
