"""Parses and checks the values of single settings."""

import re

from align_keras.errors import InputError

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def check_divides(steps: int | None, intervals: dict[str, int]) -> None:
    """Raises InputError unless the steps per execution divide the given settings."""
    for name, interval in intervals.items():
        if steps is not None and interval % steps:
            raise InputError(
                f"{steps} does not divide {interval:,}",
                remedy=f"choose a divisor of <{name}>, or change <{name}>",
                setting="steps_per_execution",
            )


def read_steps(text: str) -> tuple[int, int]:
    """Parses the two numbers of ``START:STOP``; raises an InputError for anything else."""
    start, _, stop = text.partition(":")
    if start.isdecimal() and stop.isdecimal() and 1 <= int(start) <= int(stop):
        return int(start), int(stop)
    raise InputError(
        f"{text!r} is not START:STOP",
        remedy="give the first and the last step, such as 20:25",
        setting="profile",
    )


def check_prompts(prompts: tuple[str, ...]) -> None:
    """Raises InputError unless there are prompts, each with ``{}`` for the class name."""
    if not prompts:
        raise InputError("no prompts given", None, "give one such as 'a photo of a {}'", "prompts")
    for prompt in prompts:
        if "{}" not in prompt:
            raise InputError(f"no {{}} for the class name in {prompt!r}", setting="prompts")


def check_license(text: str) -> None:
    """Raises InputError unless the text is empty or looks like a hub's licence identifier."""
    if text and not _LICENCE.fullmatch(text):
        raise InputError(
            f"{text!r} is not a licence identifier",
            remedy="give one that Hugging Face's hub knows: apache-2.0, cc-by-nc-4.0, other, ...",
            setting="license",
        )
