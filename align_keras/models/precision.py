"""The precision policy while a model is built."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def dtype_policy(policy: str | keras.DTypePolicy | None) -> Iterator[None]:
    """Makes ``policy`` the global precision policy for a while; None leaves it.

    keras-hub's EfficientNet reads the global policy only.
    """
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
