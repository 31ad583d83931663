"""The setting ``freeze``: which towers are frozen, and for how many steps."""

from align_keras.errors import InputError
from align_keras.wording import choose

TOWERS = ("image_encoder", "text_encoder")


def frozen_towers(freeze: str) -> dict[str, int | None]:
    """The towers in ``freeze``, each with its number of frozen steps; None for all steps.

    Raises:
        InputError: if a tower or a number of steps is invalid.
    """
    found: dict[str, int | None] = {}
    for one in freeze.split(",") if freeze else []:
        name, colon, steps = one.strip().partition(":")
        if name not in TOWERS:
            raise InputError(
                f"unknown tower {name!r}", remedy=choose(name, TOWERS), setting="freeze"
            )
        if colon and not (steps.isdecimal() and int(steps)):
            raise InputError(
                f"{one.strip()!r} has no number of steps",
                remedy=f"give {name}:2000, or {name} for all steps",
                setting="freeze",
            )
        found[name] = int(steps) if colon else None
    return found


def check_freeze(freeze: str, steps: int) -> None:
    """Raises InputError if ``freeze`` is invalid or does not fit the number of steps."""
    for name, last in frozen_towers(freeze).items():
        if last is not None and last >= steps:
            raise InputError(
                f"{name}:{last} ends after the last step, {steps:,}",
                remedy=f"give fewer steps, or {name} for all steps",
                setting="freeze",
            )
