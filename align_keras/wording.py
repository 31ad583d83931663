"""Formats numbers for messages, tables and reports, and suggests names in messages."""

from collections.abc import Iterable

# Minimum fraction of equal letters for a suggestion: "adam" suggests adamw, "gpu" not tpu.
_LIKE = 0.7
# Maximum number of names in a message.
_MOST_NAMES = 12


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 shard", "2,000 classes".

    Args:
        count: the number.
        noun: the noun in the singular; its last word is changed to the plural.
    """
    return f"1 {noun}" if count == 1 else f"{count:,} {plural(noun)}"


def plural(noun: str) -> str:
    """The plural of a noun: "shards", "classes", "batches", "epochs"."""
    takes_es = noun.endswith(("s", "ch")) and not noun.endswith("epoch")
    return noun + ("es" if takes_es else "s")


def rate(count: float, seconds: float, noun: str) -> str:
    """A rate with three digits: "0.417 images/s", "1,230 images/s"; "not timed" if it is unknown.

    Args:
        count: number of items done.
        seconds: time in seconds.
        noun: the noun in the plural.
    """
    if seconds <= 0 or not count:
        return "not timed"
    speed = count / seconds
    digits = max(0, 3 - len(str(int(speed)))) if speed >= 1 else 3
    return f"{speed:,.{digits}f} {noun}/s"


def duration(seconds: float) -> str:
    """A duration in common units: "40 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant; empty if none is similar.

    Args:
        name: the given name. Capitals, ``-`` and ``_`` are ignored.
        names: the known names.
    """
    # Imported here, since only a mistake needs it.
    import difflib

    by_letters = {_letters(one): one for one in names}
    near = difflib.get_close_matches(_letters(name), by_letters, 1, _LIKE)
    return by_letters[near[0]] if near else ""


def meant(name: str, names: Iterable[str]) -> str:
    """The question "did you mean pets?" for ``nearest``; empty if no name is similar."""
    near = nearest(name, names)
    return f"did you mean {near}?" if near else ""


def choose(name: str, names: Iterable[str]) -> str:
    """The remedy for a wrong name: "did you mean pets? choose one of cars, pets and 9 more".

    Args:
        name: the given name.
        names: the known names, in the order of the message; a long list is shortened.
    """
    known = list(names)
    return f"{meant(name, known)} choose one of {listed(known)}".strip()


def listed(names: Iterable[str], most: int = _MOST_NAMES) -> str:
    """Names joined by commas: "cars, pets and 9 more".

    Args:
        names: all names.
        most: number of names to show; the others are counted.
    """
    known = list(names)
    more = len(known) - most
    return ", ".join(known[:most]) + (f" and {more:,} more" if more > 0 else "")


def _letters(name: str) -> str:
    return name.lower().strip().replace("-", "_")
