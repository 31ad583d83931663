"""Text towers from a BERT checkpoint in Hugging Face's layout, without PyTorch.

Such a folder has ``config.json`` and the tensors (``tensor_files``). Its tokenizer is read by
``preprocessing.hugging_face_tokenizer``. keras-hub also reads such folders, but it ignores
``config.json``: it always uses the tanh approximation of the GELU, and the original BERT's dropout
and layer norm.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator

import keras_hub

from align_keras import hub
from align_keras.errors import InputError, Place
from align_keras.models.conversion import config as configs
from align_keras.models.conversion.tensor_files import TensorFiles
from align_keras.models.conversion.weights import Weight, build_with_tensors, text_weights
from align_keras.models.text_encoder import TextEncoder

#: ``model_type`` in ``config.json``.
MODEL_TYPE = "bert"
# Every such checkpoint has this tensor, after a prefix.
_FIRST = "embeddings.word_embeddings.weight"


def arguments(config: dict) -> tuple[dict, bool]:
    """Converts a BERT's ``config.json`` to arguments of ``BertBackbone`` and ``approximate_gelu``.

    Raises:
        InputError: if it is another model, or needs a feature that keras-hub's BERT does not have.
    """
    kind = {"model_type": config.get("model_type")}
    hub.demand(kind, "config.json", "", {"model_type": [MODEL_TYPE]})
    return configs.text_arguments(config, "")


def load(
    preset: str | os.PathLike, config: dict, approximate_gelu: bool | None = None, **options
) -> TextEncoder:
    """A text tower with the weights of a BERT checkpoint; call it inside ``hub.one_line``.

    Args:
        preset: a folder or the address of a preset on a hub.
        config: contents of the checkpoint's ``config.json``.
        approximate_gelu: as in ``TextEncoder``; None for the value in ``config.json``.
        **options: arguments of ``TextEncoder``.

    Raises:
        InputError: as in ``arguments``, or if a tensor is missing or has another shape.
        MissingInputError: if there are no weight files.
    """
    backbone, approximate = arguments(config)
    tensors = TensorFiles(str(preset))

    def build() -> TextEncoder:
        return TextEncoder(
            keras_hub.models.BertBackbone(**backbone),
            approximate if approximate_gelu is None else approximate_gelu,
            **options,
        )

    weights_of = functools.partial(_weights, tensors=tensors)
    return build_with_tensors(build, weights_of, tensors)


def _weights(encoder: TextEncoder, tensors: TensorFiles) -> Iterator[Weight]:
    for weight in text_weights(encoder, _root(tensors)):
        # Checkpoints converted from TensorFlow use these names.
        former = weight.name.replace("LayerNorm.weight", "LayerNorm.gamma")
        former = former.replace("LayerNorm.bias", "LayerNorm.beta")
        yield dataclasses.replace(weight, name=former) if former in tensors else weight


def _root(tensors: TensorFiles) -> str:
    """The prefix of all tensor names: empty, or ``bert.`` in a model with a head."""
    roots = [name.removesuffix(_FIRST) for name in tensors.names() if name.endswith(_FIRST)]
    if len(roots) != 1:
        raise InputError(
            f"{len(roots)} tensors named {_FIRST}, but a BERT has one",
            Place(member=tensors.name),
        )
    return roots[0]
