"""LAMB as published in its paper."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from align_keras import keras_internals
from align_keras.optimizers.exclusions import is_kernel
from align_keras.optimizers.schedules import LearningRate


@dataclasses.dataclass(frozen=True)
class _Scalars:
    """Scalars, float32, that the updates of all variables share in one step.

    Computed once per step. Computing them for each variable took a third of the optimizer's ops.
    """

    beta_1: tf.Tensor
    beta_2: tf.Tensor
    one_minus_beta_1: tf.Tensor
    one_minus_beta_2: tf.Tensor
    correction_1: tf.Tensor
    correction_2: tf.Tensor
    epsilon: tf.Tensor
    decay: tf.Tensor
    zero: tf.Tensor
    one: tf.Tensor


@keras.saving.register_keras_serializable(package="align_keras")
class Lamb(keras.optimizers.Optimizer):
    """LAMB, algorithm 2 of You et al., 2020 (arXiv 1904.00962); ALIGN's optimizer (sec. 5).

    This differs from ``keras.optimizers.Lamb`` in two ways. The weight decay is inside the trust
    ratio, as published. Only kernels and embedding tables get decay and layer adaptation; for all
    other variables (biases, the scales and offsets of normalisation layers, the temperature) a step
    equals one of Adam. Without that rule, a scalar would move by ``learning_rate * |w|`` whatever
    its gradient.

    The ALIGN paper states only the decay. Betas, epsilon and exclusions are those of BERT training
    with LAMB.

    Args:
        learning_rate: a float or a ``LearningRateSchedule``.
        weight_decay: the paper's lambda, 1e-5 in ALIGN.
        beta_1: decay rate of the first moment.
        beta_2: decay rate of the second moment.
        epsilon: added to the root of the second moment.
        exclude_from_decay: regular expressions; variables whose path matches get no decay.
        exclude_from_adaptation: regular expressions; variables whose path matches skip the trust
            ratio and move at the plain learning rate.
        name: name of the optimizer.
        **kwargs: arguments of ``keras.optimizers.Optimizer``.
    """

    #: Number of steps before a variable's first step, by the path of the variable; set by
    #: ``RatedLamb``.
    first_steps: Mapping[str, int] = {}

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        weight_decay: float = 1e-5,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        exclude_from_decay: Sequence[str] = (),
        exclude_from_adaptation: Sequence[str] = (),
        name: str = "lamb",
        **kwargs,
    ) -> None:
        # Otherwise Keras would apply its own decay outside the trust ratio.
        super().__init__(learning_rate=learning_rate, weight_decay=None, name=name, **kwargs)
        self.decay = weight_decay or 0.0
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.exclude_from_decay = tuple(exclude_from_decay)
        self.exclude_from_adaptation = tuple(exclude_from_adaptation)
        self._scalars: dict[int, _Scalars] | None = None

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates both moments of each variable."""
        if self.built:
            return
        super().build(variables)
        self._first_moments, self._second_moments = [], []
        for variable in variables:
            self._first_moments.append(self._add_moment(variable, "first_moment"))
            self._second_moments.append(self._add_moment(variable, "second_moment"))
        self._offsets = [0] * len(variables)
        self._decays = [
            is_kernel(variable, self.exclude_from_decay)
            and keras_internals.may_decay(self, variable)
            for variable in variables
        ]
        self._adapts = [is_kernel(v, self.exclude_from_adaptation) for v in variables]

    def _add_moment(self, variable: keras.Variable, name: str) -> keras.Variable:
        # Named as by `add_optimizer_variables`, but float32 even for a half-precision variable: in
        # half precision a second moment would never fall, since it falls by a thousandth per step.
        name = f"{variable.path.replace('/', '_')}_{name}"
        return self.add_variable(variable.shape, dtype="float32", name=name)

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Updates all variables by one step, like ``keras.optimizers.Optimizer.apply``."""
        constants = {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "one_minus_beta_1": 1.0 - self.beta_1,
            "one_minus_beta_2": 1.0 - self.beta_2,
            "epsilon": self.epsilon,
            "decay": self.decay,
            "zero": 0.0,
            "one": 1.0,
        }
        tensors = {name: tf.constant(value, tf.float32) for name, value in constants.items()}
        self._scalars = {}
        for offset in sorted({0, *self.first_steps.values()}):
            step = tf.cast(self.iterations + 1, tf.float32)
            if offset:
                step = tf.maximum(step - offset, 1.0)
            self._scalars[offset] = _Scalars(
                correction_1=1.0 - self.beta_1**step,
                correction_2=1.0 - self.beta_2**step,
                **tensors,
            )
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._scalars = None  # they belong to a graph, which they would keep alive

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable: ``w -= rate * |w| / |r + decay * w| * (r + decay * w)``."""
        index = keras_internals.variable_index(self, variable)
        first, second = self._first_moments[index], self._second_moments[index]
        if self._scalars is None:
            raise RuntimeError("call apply(), which moves all variables by one step")
        scalars = self._scalars[self._offsets[index]]
        # The sparse gradient of an embedding becomes dense, since untouched rows decay too.
        gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
        weight = tf.cast(tf.convert_to_tensor(variable), tf.float32)

        mean = scalars.beta_1 * first + scalars.one_minus_beta_1 * gradient
        mean_square = scalars.beta_2 * second + scalars.one_minus_beta_2 * tf.square(gradient)
        self.assign(first, mean)
        self.assign(second, mean_square)
        update = (mean / scalars.correction_1) / (
            tf.sqrt(mean_square / scalars.correction_2) + scalars.epsilon
        )
        rate = tf.cast(learning_rate, tf.float32)
        if self._decays[index]:
            update += scalars.decay * weight
        if self._adapts[index]:
            weight_norm, update_norm = _norm(weight), _norm(update)
            both = (weight_norm > scalars.zero) & (update_norm > scalars.zero)
            rate *= tf.where(both, weight_norm / update_norm, scalars.one)
        self.assign_sub(variable, tf.cast(rate * update, variable.dtype))

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        return {
            **super().get_config(),
            "weight_decay": self.decay,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "exclude_from_decay": self.exclude_from_decay,
            "exclude_from_adaptation": self.exclude_from_adaptation,
        }


def _norm(value):
    """The Euclidean norm; ``tf.norm`` needs three times as many ops."""
    return tf.sqrt(tf.reduce_sum(tf.square(value)))
