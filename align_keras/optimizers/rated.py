"""Optimizers that train some variables more slowly than others, or only from a later step on."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from align_keras import keras_internals
from align_keras.optimizers.lamb import Lamb


class _Rated(keras.optimizers.Optimizer):
    """Adds a learning-rate factor and a first step per variable to an optimizer.

    A factor also applies to decoupled weight decay, as with the parameter groups of other
    frameworks. For a variable that was frozen at first, bias correction counts from its own first
    step. Otherwise its first updates would be several times too large.

    Args:
        *args: arguments of the optimizer.
        factors: factors for the learning rate, by the path of the variable; 1 for others.
        first_steps: number of steps before a variable's first step, by the path of the variable; 0
            for others.
        **kwargs: arguments of the optimizer.
    """

    weight_decay: float | None
    first_steps: Mapping[str, int]
    _offset = 0

    def __init__(
        self,
        *args: Any,
        factors: Mapping[str, float] | None = None,
        first_steps: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.factors, self.first_steps = dict(factors or {}), dict(first_steps or {})
        # Otherwise Keras would apply the decay at the full learning rate. LAMB has its own decay.
        self.decoupled_decay, self.weight_decay = self.weight_decay, None

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the variables of the optimizer."""
        if self.built:
            return
        super().build(variables)
        self._factors = [self.factors.get(variable.path, 1.0) for variable in variables]
        self._offsets = [self.first_steps.get(variable.path, 0) for variable in variables]
        self._may_decay = [keras_internals.may_decay(self, variable) for variable in variables]

    @property
    def iterations(self) -> Any:
        """The number of steps; in the update of a variable, those since its first one."""
        steps = super().iterations
        # Steps that overflowed float16 do not count, so the difference may be negative.
        return tf.maximum(tf.convert_to_tensor(steps) - self._offset, 0) if self._offset else steps

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable at its own rate."""
        index = keras_internals.variable_index(self, variable)
        rate = learning_rate * self._factors[index]
        if self.decoupled_decay and self._may_decay[index]:
            self.assign_sub(variable, variable * self.decoupled_decay * rate)
        self._offset = self._offsets[index]
        try:
            super().update_step(gradient, variable, rate)
        finally:
            self._offset = 0

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        config = super().get_config()
        if self.decoupled_decay is not None:
            config["weight_decay"] = self.decoupled_decay
        return {**config, "factors": self.factors, "first_steps": self.first_steps}


@keras.saving.register_keras_serializable(package="align_keras")
class RatedLamb(_Rated, Lamb):
    """``Lamb`` with ``factors`` and ``first_steps``."""


@keras.saving.register_keras_serializable(package="align_keras")
class RatedAdamW(_Rated, keras.optimizers.AdamW):
    """Keras's AdamW with ``factors`` and ``first_steps``."""


@keras.saving.register_keras_serializable(package="align_keras")
class RatedSGD(_Rated, keras.optimizers.SGD):
    """Keras's SGD with ``factors`` and ``first_steps``."""


@keras.saving.register_keras_serializable(package="align_keras")
class RatedAdafactor(_Rated, keras.optimizers.Adafactor):
    """Keras's Adafactor with ``factors`` and ``first_steps``."""
