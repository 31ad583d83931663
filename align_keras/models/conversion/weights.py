"""Maps the weights of an ``AlignBackbone`` to those of Hugging Face's ``AlignModel``."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

from align_keras import keras_internals
from align_keras.errors import InputError
from align_keras.models import efficientnet
from align_keras.models.conversion.tensor_files import TensorFiles

_AXES = {
    # (out, in, height, width) to (height, width, in, out)
    "convolution": (2, 3, 1, 0),
    # (channels, 1, height, width) to (height, width, channels, 1)
    "depthwise": (2, 3, 0, 1),
}


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight: the Keras variable, its name in Hugging Face's layout, and the order of its axes.

    ``kind`` is "convolution", "depthwise", "dense" (transposed; Keras may split the outputs into
    heads), "heads" (transposed; Keras splits the inputs into heads), "vector" (Keras may split it
    into heads) or "table".
    """

    name: str
    variable: keras.Variable
    kind: str = "vector"

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of the array in Hugging Face's layout."""
        shape = tuple(self.variable.shape)
        if self.kind in _AXES:
            return tuple(shape[axis] for axis in np.argsort(_AXES[self.kind]))
        if self.kind == "dense":
            return math.prod(shape[1:]), shape[0]
        if self.kind == "heads":
            return shape[-1], math.prod(shape[:-1])
        return (math.prod(shape),) if self.kind == "vector" else shape

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises InputError if an array of Hugging Face's layout has the wrong shape."""
        if shape != self.their_shape:
            raise InputError(
                f"{self.name} has the shape {shape}, but config.json asks for {self.their_shape}"
            )

    def to_keras(self, tensor: np.ndarray) -> np.ndarray:
        """Converts an array of Hugging Face's layout to the value of this variable."""
        if self.kind in ("vector", "table"):
            return np.reshape(tensor, self.variable.shape)
        return np.reshape(np.transpose(tensor, _AXES.get(self.kind)), self.variable.shape)

    def from_keras(self) -> np.ndarray:
        """Converts the value of this variable to an array of Hugging Face's layout, float32."""
        value = keras.ops.convert_to_numpy(self.variable).astype("float32")
        if self.kind in _AXES:
            value = np.transpose(value, np.argsort(_AXES[self.kind]))
        elif self.kind in ("dense", "heads"):
            value = np.reshape(value, self.their_shape[::-1]).T
        return np.ascontiguousarray(np.reshape(value, self.their_shape))


def build_with_tensors(
    build: Callable[[], keras.Model],
    weights_of: Callable[[keras.Model], Iterable[Weight]],
    tensors: TensorFiles,
) -> keras.Model:
    """Builds a model whose variables get tensors instead of random initial values.

    Variables are filled one by one, so that memory never holds two copies of the weights.

    Args:
        build: builds the model.
        weights_of: returns the weights of the built model.
        tensors: the tensors of the checkpoint.

    Raises:
        InputError: if a tensor is missing or has another shape.
    """
    with keras_internals.variables_without_values():
        model = build()
    weights = list(weights_of(model))
    for weight in weights:
        weight.check(tensors.shape(weight.name))
    values = {id(w.variable): functools.partial(_read, w, tensors) for w in weights}
    for variable in model.variables:
        # Only the states of dropout layers have no tensor.
        keras_internals.give_value(variable, values.get(id(variable)))
    return model


def _read(weight, tensors, shape, dtype=None):
    """The value of a weight; partially applied, it is a Keras initializer."""
    return keras.ops.convert_to_tensor(weight.to_keras(tensors.read(weight.name)), dtype)


def backbone_weights(backbone: keras.Model) -> Iterator[Weight]:
    """Yields a ``Weight`` for every weight of an ``AlignBackbone``, in the model's order."""
    yield from _image_weights(backbone.image_encoder)
    yield from text_weights(backbone.text_encoder, "text_model.")
    yield from _dense("text_projection", backbone.text_projection)


def _image_weights(encoder):
    stem = "vision_model.embeddings"
    yield Weight(f"{stem}.convolution.weight", encoder.get_layer("stem_conv").kernel, "convolution")
    yield from _batch_norm(f"{stem}.batchnorm", encoder.get_layer("stem_bn"))
    for index, block in enumerate(efficientnet.blocks(encoder)):
        prefix = f"vision_model.encoder.blocks.{index}"
        if "expand_conv" in block:
            name = f"{prefix}.expansion"
            yield Weight(f"{name}.expand_conv.weight", block["expand_conv"].kernel, "convolution")
            yield from _batch_norm(f"{name}.expand_bn", block["expand_bn"])
        name = f"{prefix}.depthwise_conv"
        yield Weight(f"{name}.depthwise_conv.weight", block["depthwise"].kernel, "depthwise")
        yield from _batch_norm(f"{name}.depthwise_norm", block["depthwise_bn"])
        for part in ("reduce", "expand"):
            name = f"{prefix}.squeeze_excite.{part}"
            yield Weight(f"{name}.weight", block[f"se_{part}"].kernel, "convolution")
            yield Weight(f"{name}.bias", block[f"se_{part}"].bias)
        name = f"{prefix}.projection"
        yield Weight(f"{name}.project_conv.weight", block["project"].kernel, "convolution")
        yield from _batch_norm(f"{name}.project_bn", block["project_bn"])


def _batch_norm(name, layer):
    yield Weight(f"{name}.weight", layer.gamma)
    yield Weight(f"{name}.bias", layer.beta)
    yield Weight(f"{name}.running_mean", layer.moving_mean)
    yield Weight(f"{name}.running_var", layer.moving_variance)


def text_weights(encoder: keras.Model, root: str) -> Iterator[Weight]:
    """Yields every weight of a ``TextEncoder``, in the model's order.

    Args:
        encoder: the text tower.
        root: prefix of the names in the checkpoint, such as ``"text_model."``.

    Yields:
        One ``Weight`` for each weight.
    """
    name = f"{root}embeddings"
    tables = {
        "word": encoder.get_layer("token_embedding").embeddings,
        "position": encoder.get_layer("position_embedding").position_embeddings,
        "token_type": encoder.get_layer("segment_embedding").embeddings,
    }
    for part, table in tables.items():
        yield Weight(f"{name}.{part}_embeddings.weight", table, "table")
    yield from _layer_norm(f"{name}.LayerNorm", encoder.get_layer("embeddings_layer_norm"))
    for index in range(encoder.backbone_config["num_layers"]):
        prefix = f"{root}encoder.layer.{index}"
        block = encoder.get_layer(f"transformer_layer_{index}")
        attention, attention_norm = keras_internals.attention_layers(block)
        intermediate, output, output_norm = keras_internals.feed_forward_layers(block)
        for part in ("query", "key", "value"):
            name = f"{prefix}.attention.self.{part}"
            yield from _dense(name, getattr(attention, f"{part}_dense"))
        name = f"{prefix}.attention.output"
        yield from _dense(f"{name}.dense", attention.output_dense, "heads")
        yield from _layer_norm(f"{name}.LayerNorm", attention_norm)
        yield from _dense(f"{prefix}.intermediate.dense", intermediate)
        yield from _dense(f"{prefix}.output.dense", output)
        yield from _layer_norm(f"{prefix}.output.LayerNorm", output_norm)


def _dense(name, layer, kind="dense"):
    yield Weight(f"{name}.weight", layer.kernel, kind)
    yield Weight(f"{name}.bias", layer.bias)


def _layer_norm(name, layer):
    yield Weight(f"{name}.weight", layer.gamma)
    yield Weight(f"{name}.bias", layer.beta)
