"""Reads and writes checkpoints in the layout of Hugging Face's ``AlignModel``, without PyTorch.

The only public ALIGN weights, kakaobrain/align-base, have this layout: ``config.json``, the tensors
(``tensor_files``), and the files of the processor (``preprocessing.hugging_face``). Their towers
equal ``ImageEncoder(first_block_residuals=False)`` and ``TextEncoder(approximate_gelu=False)`` in
padding, residuals and activations. Their images are resized by Pillow.
"""

import functools
import math
import os

import keras
import keras_hub
import numpy as np
import safetensors.numpy

from align_keras import checksums, hub, keras_internals
from align_keras.errors import InputError, Place
from align_keras.models.contrastive_model import MIN_TEMPERATURE
from align_keras.models.conversion import config as configs
from align_keras.models.conversion.tensor_files import TensorFiles
from align_keras.models.conversion.weights import backbone_weights, build_with_tensors
from align_keras.models.image_encoder import ImageEncoder
from align_keras.models.text_encoder import TextEncoder
from align_keras.preprocessing import hugging_face
from align_keras.preprocessing.hugging_face import MODEL_TYPE


class Loader(keras_internals.PresetLoader):
    """Reads such a checkpoint through the interface of keras-hub's preset loaders.

    Args:
        preset: a folder or the address of a preset on a hub.
        config: contents of the checkpoint's ``config.json``.
    """

    def load_backbone(self, cls, load_weights: bool = True, **kwargs) -> keras.Model:
        """An ``AlignBackbone`` (``cls``) with the configuration and weights of the checkpoint."""
        if not load_weights:
            return self._build(cls, **kwargs)
        build = functools.partial(self._build, cls, **kwargs)
        return build_with_tensors(build, backbone_weights, self._tensors)

    def _build(self, cls, **kwargs):
        text, approximate_gelu = configs.text_arguments(self.config.get("text_config") or {})
        vision, momentum = configs.vision_arguments(self.config.get("vision_config") or {})
        backbone = cls(
            ImageEncoder(
                keras_hub.models.EfficientNetBackbone(**vision),
                batch_norm_momentum=momentum,
                first_block_residuals=False,
                name="image_encoder",
            ),
            TextEncoder(
                keras_hub.models.BertBackbone(**text),
                approximate_gelu=approximate_gelu,
                name="text_encoder",
            ),
            projection_dim=self._own("projection_dim"),
            **kwargs,
        )
        if backbone.image_projection is not None:
            raise InputError(
                f"{backbone.projection_dim}, but the image tower is "
                f"{backbone.image_encoder.output_shape[-1]} wide",
                Place(member="config.json", column="projection_dim"),
            )
        return backbone

    @functools.cached_property
    def _tensors(self):
        """The tensors of the checkpoint, downloaded if necessary."""
        return TensorFiles(self.preset)

    def load_preprocessor(self, cls, **options) -> keras_hub.models.Preprocessor:
        """An ``AlignPreprocessor`` (``cls``) with the settings of the checkpoint."""
        return cls(**{**hugging_face.arguments(self.preset, self.config), **options})

    def load_task(
        self,
        cls,
        load_weights: bool = True,
        load_task_weights: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
        **kwargs,
    ) -> keras.Model:
        """An ``AlignDualEncoder`` (``cls``) with backbone, preprocessor and temperature."""
        temperature = self._own("temperature_init_value")
        if load_weights:
            temperature = float(self._tensors.read("temperature").item())
        if not temperature > 0.0:
            raise InputError(f"the temperature is {temperature}, not above 0")
        model = cls(
            **{
                # First, since creating a tokenizer briefly needs memory.
                "preprocessor": self.load_preprocessor(cls.preprocessor_cls),
                "backbone": self.load_backbone(cls.backbone_cls, load_weights, dtype=dtype),
                "initial_temperature": temperature,
                "min_temperature": min(temperature, MIN_TEMPERATURE),
                **kwargs,
            }
        )
        if load_weights:
            model.log_temperature.assign(math.log(temperature))
        return model

    def _own(self, name):
        return self.config.get(name, configs.DEFAULTS[name])


def export(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes an ``AlignDualEncoder`` in this layout.

    ``AlignModel`` of Hugging Face's transformers and ``from_preset`` can read it.

    Args:
        model: a model with a preprocessor.
        path: a folder, which is created if necessary.

    Raises:
        ValueError: if the layout cannot express the model: the image tower must be an EfficientNet
            as wide as the embeddings, and there must be a preprocessor.
    """
    backbone, preprocessor = model.backbone, model.preprocessor
    if preprocessor is None:
        raise ValueError("the model has no preprocessor, whose settings the layout holds")
    if backbone.image_projection is not None:
        raise ValueError(
            "the Hugging Face layout has no projection of images: projection_dim "
            f"({backbone.projection_dim}) must be the image tower's width "
            f"({backbone.image_encoder.output_shape[-1]})"
        )
    if backbone.image_encoder.has_first_block_residuals:
        raise ValueError(
            "the Hugging Face layout has no residual in the first block of a stage; this narrow "
            "tower has one; build it with first_block_residuals=False"
        )
    if backbone.image_encoder.top_convolution or backbone.text_encoder.pooling != "cls":
        raise ValueError(
            "the Hugging Face layout has image features before the top convolution and text "
            "features at [CLS]"
        )
    config = {
        "architectures": ["AlignModel"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "projection_dim": backbone.projection_dim,
        "temperature_init_value": model.initial_temperature,
        "text_config": configs.text_config(backbone.text_encoder),
        "vision_config": configs.vision_config(backbone.image_encoder, preprocessor.image_size),
    }
    with checksums.writing_into(path) as folder:
        _write_tensors(model, folder)
        hugging_face.write(preprocessor, folder)
        hub.write_json(folder, "config.json", config)


def _write_tensors(model, path):
    tensors = {weight.name: weight.from_keras() for weight in backbone_weights(model.backbone)}
    counts = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), "int64")
        for name in tensors
        if name.endswith("running_mean")
    }
    width = model.backbone.text_encoder.output_shape[-1]
    # BERT's own pooler. Hugging Face's model computes it, but does not use the result.
    pooler = {
        "text_model.pooler.dense.weight": np.zeros((width, width), "float32"),
        "text_model.pooler.dense.bias": np.zeros(width, "float32"),
    }
    temperature = {"temperature": np.array(math.exp(model.log_temperature.numpy()), "float32")}
    file = os.path.join(path, keras_internals.SAFETENSORS_FILE)
    safetensors.numpy.save_file(
        {**tensors, **counts, **pooler, **temperature}, file, metadata={"format": "pt"}
    )
