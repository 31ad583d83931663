"""The arguments of ``ContrastiveModel.compile``, in the form stored in ``.keras`` files."""

from typing import Any

import keras

from align_keras.optimizers.named import leave_out_of_decay
from align_keras.optimizers.wrapping import inner_optimizer

_OPTIONS = (
    "label_smoothing",
    "mask_false_negatives",
    "global_clipnorm",
    "loss_tile_rows",
    "micro_batch_size",
    "rematerialize",
    "space_to_batch",
)


def of(model: Any) -> dict[str, Any]:
    """The arguments with which a ``ContrastiveModel`` was compiled, serialised."""
    return {
        "optimizer": keras.saving.serialize_keras_object(model.optimizer),
        "optimizer_is_built": model.optimizer.built,
        "decay_exclusions": getattr(inner_optimizer(model.optimizer), "decay_exclusions", None),
        **{name: getattr(model, name) for name in _OPTIONS},
    }


def apply(model: Any, config: dict[str, Any]) -> None:
    """Compiles a ``ContrastiveModel`` with the arguments returned by ``of``."""
    options = dict(config)
    is_built, exclusions = options.pop("optimizer_is_built"), options.pop("decay_exclusions")
    optimizer = options["optimizer"] = keras.saving.deserialize_keras_object(config["optimizer"])
    if exclusions is not None:
        leave_out_of_decay(inner_optimizer(optimizer), model.trainable_variables, exclusions)
    model.compile(**options)
    if is_built and not model.optimizer.built:  # its state will be loaded
        model.optimizer.build(model.trainable_variables)


def set_option(tower: Any, name: str, value: bool | None) -> None:
    """Sets an attribute of a tower; raises ValueError if the tower does not have it."""
    if hasattr(tower, name):
        setattr(tower, name, value)
    elif value:
        raise ValueError(f"{name}: the tower {tower.name} has no such attribute")


class Recompiled:
    """Keras's hooks to save how a ``ContrastiveModel`` was compiled, and to compile it again."""

    compiled: bool

    def get_compile_config(self) -> dict | None:
        """The arguments of ``compile``, serialised; None if it has not been called."""
        return of(self) if self.compiled else None

    def compile_from_config(self, config: dict) -> None:
        """Compiles from ``get_compile_config``'s dictionary, as loading a model does."""
        apply(self, config)
