"""SGD that trains a fine-tuned tower more slowly than the new layer on top of it."""

import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from align_keras import keras_internals
from align_keras.optimizers.exclusions import is_kernel
from align_keras.optimizers.schedules import LearningRate


@keras.saving.register_keras_serializable(package="align_keras")
class LayerwiseSGD(keras.optimizers.SGD):
    """SGD with momentum and a lower learning rate for all but some weights (paper: transfer).

    Weight decay is L2 regularisation, as is traditional for SGD: it is added to the gradient and
    thus passes through the momentum. ``keras.optimizers.SGD`` instead subtracts it from the weight.
    Biases and the weights of normalisation layers have no decay. The paper states the size of the
    decay, but not its form.

    Args:
        learning_rate: a float or a ``LearningRateSchedule``.
        momentum: 0.9 in the paper.
        weight_decay: 0 for ImageNet, 1e-5 for the fine-grained sets.
        factor: factor for the learning rate; 0.1 for ImageNet.
        full_rate: regular expressions; variables whose path matches keep the full learning rate.
        name: name of the optimizer.
        **kwargs: arguments of ``keras.optimizers.SGD``.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        factor: float = 1.0,
        full_rate: Sequence[str] = (r"\bhead/",),
        name: str = "layerwise_sgd",
        **kwargs,
    ) -> None:
        # Otherwise Keras would apply its own decay at the full learning rate.
        super().__init__(learning_rate, momentum, weight_decay=None, name=name, **kwargs)
        self.decay = weight_decay or 0.0
        self.factor = factor
        self.full_rate = tuple(full_rate)

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the momentum of each variable."""
        if self.built:
            return
        super().build(variables)
        self._decays = [is_kernel(variable) for variable in variables]
        self._factors = [
            1.0 if any(re.search(e, variable.path) for e in self.full_rate) else self.factor
            for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable: ``v = momentum * v - rate * (g + decay * w)``, ``w += v``."""
        index = keras_internals.variable_index(self, variable)
        if self.decay and self._decays[index]:
            gradient = gradient + self.decay * tf.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate * self._factors[index])

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        return {
            **super().get_config(),
            "weight_decay": self.decay,
            "factor": self.factor,
            "full_rate": self.full_rate,
        }
