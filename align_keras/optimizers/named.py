"""Optimizers by name."""

import re

import keras

from align_keras.optimizers.exclusions import is_matrix
from align_keras.optimizers.lamb import Lamb

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
        [variable for variable in variables if not is_matrix(variable, exclusions)]
    )
