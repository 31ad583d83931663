"""Optimizers by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from align_keras.errors import InputError
from align_keras.optimizers.exclusions import is_kernel
from align_keras.optimizers.lamb import Lamb
from align_keras.optimizers.rated import RatedAdafactor, RatedAdamW, RatedLamb, RatedSGD
from align_keras.optimizers.schedules import LearningRate
from align_keras.wording import choose

# For each name, the class without and with learning-rate factors per variable.
_KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "lamb": (Lamb, RatedLamb),
    "adamw": (keras.optimizers.AdamW, RatedAdamW),
    "sgd": (keras.optimizers.SGD, RatedSGD),
    "adafactor": (keras.optimizers.Adafactor, RatedAdafactor),
}
OPTIMIZERS = tuple(_KINDS)


def make_optimizer(
    name: str,
    learning_rate: LearningRate,
    variables: Sequence[keras.Variable],
    *,
    weight_decay: float = 1e-5,
    exclude_from_decay: Sequence[str] = (),
    exclude_from_adaptation: Sequence[str] = (),
    ema_momentum: float = 0.0,
    factors: Mapping[str, float] | None = None,
    first_steps: Mapping[str, int] | None = None,
) -> keras.optimizers.Optimizer:
    """Creates an optimizer by name. LAMB is ours, the others are Keras's.

    Weight decay is decoupled (``w -= learning_rate * decay * w``); biases, scalars and the weights
    of normalisation layers are exempt. Keras's Adafactor scales a step by the size of the weight
    and keeps a full second moment, so it needs as much memory as SGD with momentum.

    Args:
        name: ``lamb``, ``adamw``, ``sgd`` (momentum 0.9) or ``adafactor``.
        learning_rate: a float or a ``LearningRateSchedule``.
        variables: the variables to train; every exclusion must match one of them.
        weight_decay: 1e-5 in ALIGN.
        exclude_from_decay: regular expressions; variables whose path matches get no decay.
        exclude_from_adaptation: regular expressions; variables whose path matches skip LAMB's
            trust ratio.
        ema_momentum: decay of the weight average, see ``averaged_weights``; 0 to keep no average.
        factors: factors for the learning rate, by the path of the variable.
        first_steps: number of steps for which a variable is frozen, by the path of the variable.

    Raises:
        InputError: if the name is unknown, an exclusion matches no variable or is not a regular
            expression, or ``exclude_from_adaptation`` is given without LAMB. The setting of the
            error is the name of the argument, or ``optimizer`` for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise InputError(
            f"unknown optimizer {name!r}", remedy=choose(name, OPTIMIZERS), setting="optimizer"
        )
    if name != "lamb" and exclude_from_adaptation:
        problem = f"{name} has no layer adaptation; only LAMB has"
        raise InputError(problem, setting="exclude_from_adaptation")
    _check_exclusions("exclude_from_decay", exclude_from_decay, variables)
    _check_exclusions("exclude_from_adaptation", exclude_from_adaptation, variables)
    options: dict[str, Any] = {"use_ema": ema_momentum > 0.0, "ema_momentum": ema_momentum or 0.99}
    plain, rated = _KINDS[name]
    kind = plain
    if factors or first_steps:
        kind = rated
        options |= {"factors": factors, "first_steps": first_steps}
    if name == "lamb":
        return kind(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_decay=exclude_from_decay,
            exclude_from_adaptation=exclude_from_adaptation,
            **options,
        )
    options["weight_decay"] = weight_decay
    if name == "adamw":
        optimizer = kind(learning_rate, epsilon=1e-6, **options)
    elif name == "sgd":
        optimizer = kind(learning_rate, momentum=0.9, **options)
    else:
        optimizer = kind(learning_rate, relative_step=False, **options)
    leave_out_of_decay(optimizer, variables, exclude_from_decay)
    return optimizer


def _check_exclusions(argument, exclusions, variables):
    """Raises InputError unless each exclusion matches the path of some variable."""
    for exclusion in exclusions:
        try:
            matched = any(re.search(exclusion, variable.path) for variable in variables)
        except re.error as error:
            problem = f"{exclusion!r} is not a regular expression: {error}"
            raise InputError(problem, setting=argument) from None
        if not matched:
            problem = f"{exclusion!r} matches no path of a variable"
            raise InputError(problem, setting=argument)


def leave_out_of_decay(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    exclusions: Iterable[str],
) -> None:
    """Limits weight decay to kernels and embedding tables that no exclusion matches.

    Keras does not save this choice. It is kept in ``optimizer.decay_exclusions``, which
    ``ContrastiveModel`` saves.
    """
    optimizer.decay_exclusions = list(exclusions)
    optimizer.exclude_from_weight_decay(
        [variable for variable in variables if not is_kernel(variable, exclusions)]
    )
