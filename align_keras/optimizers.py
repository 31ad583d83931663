"""LAMB as published, other optimizers by name, and the paper's learning-rate schedule."""

import contextlib
import re

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="align_keras")
class Lamb(keras.optimizers.Optimizer):
    """LAMB, algorithm 2 of You et al., 2020 (arXiv 1904.00962); ALIGN's optimizer (sec. 5).

    Unlike ``keras.optimizers.Lamb``, the weight decay is inside the trust ratio, as
    published, and variables of fewer than two dimensions (biases, the scales and offsets of
    normalisation layers, the temperature) get neither decay nor layer adaptation: for them a
    step is Adam's. Without that rule a scalar moves by ``learning_rate * |w|`` whatever its
    gradient.

    The ALIGN paper names only the decay; betas, epsilon and exclusions are those of BERT
    training with LAMB.

    Args:
        learning_rate: a float or a ``LearningRateSchedule``.
        weight_decay: the paper's lambda, 1e-5 in ALIGN.
        beta_1: decay rate of the first moment.
        beta_2: decay rate of the second moment.
        epsilon: added to the root of the second moment.
        exclude_from_decay: regular expressions; variables with a match in their path get no
            decay either.
        exclude_from_adaptation: likewise; these move at the plain learning rate.
        name: of the optimizer.
        **kwargs: of ``keras.optimizers.Optimizer``.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        weight_decay=1e-5,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        exclude_from_decay=(),
        exclude_from_adaptation=(),
        name="lamb",
        **kwargs,
    ):
        # Keras would apply its own decay outside the trust ratio.
        super().__init__(learning_rate=learning_rate, weight_decay=None, name=name, **kwargs)
        self.decay = weight_decay or 0.0
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.exclude_from_decay = tuple(exclude_from_decay)
        self.exclude_from_adaptation = tuple(exclude_from_adaptation)

    def build(self, variables):
        """Makes both moments of each variable."""
        if self.built:
            return
        super().build(variables)
        self._first_moments, self._second_moments = self.add_optimizer_variables(
            variables, ["first_moment", "second_moment"]
        )
        self._decays = [
            _is_matrix(variable, self.exclude_from_decay) and self._use_weight_decay(variable)
            for variable in variables
        ]
        self._adapts = [_is_matrix(v, self.exclude_from_adaptation) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable: ``w -= rate * |w| / |r + decay * w| * (r + decay * w)``."""
        index = self._get_variable_index(variable)
        first, second = self._first_moments[index], self._second_moments[index]
        # An embedding's sparse gradient becomes dense: untouched rows decay as well.
        gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
        weight = tf.cast(tf.convert_to_tensor(variable), tf.float32)
        step = tf.cast(self.iterations + 1, tf.float32)

        self.assign(first, self.beta_1 * first + (1.0 - self.beta_1) * gradient)
        self.assign(second, self.beta_2 * second + (1.0 - self.beta_2) * tf.square(gradient))
        update = (first / (1.0 - self.beta_1**step)) / (
            tf.sqrt(second / (1.0 - self.beta_2**step)) + self.epsilon
        )
        ratio = 1.0
        if self._decays[index]:
            update += self.decay * weight
        if self._adapts[index]:
            weight_norm, update_norm = tf.norm(weight), tf.norm(update)
            ratio = tf.where(
                (weight_norm > 0.0) & (update_norm > 0.0), weight_norm / update_norm, 1.0
            )
        rate = tf.cast(learning_rate, tf.float32)
        self.assign_sub(variable, tf.cast(rate * ratio * update, variable.dtype))

    def get_config(self):
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


def _is_matrix(variable, exclusions):
    """Whether a variable has two dimensions or more, and no exclusion matches its path."""
    return len(variable.shape) >= 2 and not any(re.search(e, variable.path) for e in exclusions)


OPTIMIZERS = ("lamb", "adamw", "sgd", "adafactor")


def make_optimizer(
    name,
    learning_rate,
    variables,
    *,
    weight_decay=1e-5,
    exclude_from_decay=(),
    exclude_from_adaptation=(),
    ema_momentum=0.0,
):
    """Makes an optimizer from its name; all but LAMB are Keras's.

    Their decay is decoupled (``w -= learning_rate * decay * w``) and leaves out variables of
    fewer than two dimensions. Keras's Adafactor scales a step by the size of the weight, and
    keeps a full second moment, so that it saves no memory over SGD with momentum.

    Args:
        name: ``lamb``, ``adamw``, ``sgd`` (momentum 0.9) or ``adafactor``.
        learning_rate: a float or a ``LearningRateSchedule``.
        variables: those that it will train, which the exclusions are checked against.
        weight_decay: 1e-5 in ALIGN.
        exclude_from_decay: regular expressions; variables with a match in their path get no
            decay.
        exclude_from_adaptation: likewise for LAMB's trust ratio.
        ema_momentum: of a moving average of the weights, see ``averaged_weights``; 0 for none.

    Raises:
        ValueError: if the name is unknown, an exclusion matches no variable or is no regular
            expression, or another optimizer than LAMB is to leave out an adaptation.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer: no {name!r}; choose one of {', '.join(OPTIMIZERS)}")
    if name != "lamb" and exclude_from_adaptation:
        raise ValueError(f"exclude_from_adaptation: {name} has no layer adaptation; LAMB has")
    for exclusion in (*exclude_from_decay, *exclude_from_adaptation):
        try:
            matched = any(re.search(exclusion, variable.path) for variable in variables)
        except re.error as error:
            raise ValueError(f"exclusion {exclusion!r} is no regular expression: {error}") from None
        if not matched:
            raise ValueError(f"exclusion {exclusion!r} matches the path of no variable")
    options = {"use_ema": ema_momentum > 0.0, "ema_momentum": ema_momentum or 0.99}
    if name == "lamb":
        return Lamb(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_decay=exclude_from_decay,
            exclude_from_adaptation=exclude_from_adaptation,
            **options,
        )
    options["weight_decay"] = weight_decay
    if name == "adamw":
        optimizer = keras.optimizers.AdamW(learning_rate, epsilon=1e-6, **options)
    elif name == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9, **options)
    else:
        optimizer = keras.optimizers.Adafactor(learning_rate, relative_step=False, **options)
    leave_out_of_decay(optimizer, variables, exclude_from_decay)
    return optimizer


def leave_out_of_decay(optimizer, variables, exclusions):
    """Takes what is no matrix, or matches an exclusion, out of a Keras optimizer's decay.

    Keras does not save that; ``optimizer.decay_exclusions`` is kept for ``ContrastiveModel`` to.
    """
    optimizer.decay_exclusions = list(exclusions)
    optimizer.exclude_from_weight_decay(
        [variable for variable in variables if not _is_matrix(variable, exclusions)]
    )


@contextlib.contextmanager
def averaged_weights(model):
    """Within, a compiled model has the moving average of its weights, if its optimizer keeps one.

    Afterwards it has its own again, to the bit; ``keras.callbacks.SwapEMAWeights`` swaps by
    adding and subtracting, which rounds. Batch norm's statistics are averages already.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    # The average begins with the first step.
    if not optimizer.use_ema or not int(optimizer.iterations.numpy()):
        yield
        return
    own = [variable.numpy() for variable in model.trainable_variables]
    averages = optimizer._model_variables_moving_average
    try:
        for variable, average in zip(model.trainable_variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)


@keras.saving.register_keras_serializable(package="align_keras")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """From 0 to ``peak`` over ``warmup_steps``, then linearly to 0 at ``total_steps`` (sec. 5).

    Args:
        peak: the highest learning rate, 1e-3 in the paper.
        warmup_steps: optimizer steps, 10,000 in the paper; fewer than ``total_steps``.
        total_steps: optimizer steps, 1,200,000 in the paper.

    Raises:
        ValueError: if ``warmup_steps`` is not from 0 to below ``total_steps``.
    """

    def __init__(self, peak, warmup_steps, total_steps):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                f"warmup_steps must be from 0 to below total_steps ({total_steps}), "
                f"not {warmup_steps}"
            )
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step):
        """The learning rate of one step, counted from 0; the first is above 0."""
        step = tf.cast(step, tf.float32)
        warmup = (step + 1.0) / max(self.warmup_steps, 1)
        decay = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        return self.peak * tf.clip_by_value(tf.minimum(warmup, decay), 0.0, 1.0)

    def get_config(self):
        """The constructor's arguments."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }
