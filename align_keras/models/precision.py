"""Sets the precision policy while a model is built or loaded."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras

_FORCED: contextvars.ContextVar[str | keras.DTypePolicy | None] = contextvars.ContextVar(
    "forced", default=None
)


@contextlib.contextmanager
def dtype_policy(policy: str | keras.DTypePolicy | None) -> Iterator[None]:
    """Makes ``policy`` the global precision policy inside the block; None leaves it unchanged.

    This is needed since keras-hub's EfficientNet uses only the global policy.
    """
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def forced_policy(policy: str | keras.DTypePolicy | None) -> Iterator[None]:
    """Inside the block, models are loaded in ``policy``, not in the policy they were saved with.

    None stands for the global policy. Presets are loaded this way, since they can be used in any
    precision.
    """
    policy = policy or keras.config.dtype_policy()
    token = _FORCED.set(policy)
    try:
        with dtype_policy(policy):
            yield
    finally:
        _FORCED.reset(token)


@contextlib.contextmanager
def saved_policy(config: Any) -> Iterator[str | keras.DTypePolicy | None]:
    """Inside the block, the global policy is the saved one, unless another is forced.

    A ``.keras`` file thus gives the same numbers under any global policy.

    Args:
        config: the saved policy: a name, or a policy as Keras serialises it; None if none was
            saved.

    Yields:
        The policy; None for the global one.
    """
    policy = _FORCED.get() or (None if config is None else keras.dtype_policies.get(config))
    with dtype_policy(policy):
        yield policy
