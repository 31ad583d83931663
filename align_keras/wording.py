"""How numbers are said in lines, tables and reports."""


def counted(count: int, noun: str) -> str:
    """A number of things: "1 shard", "2,000 classes".

    Args:
        count: how many.
        noun: what, in the singular; its last word is put into the plural.
    """
    return f"1 {noun}" if count == 1 else f"{count:,} {plural(noun)}"


def plural(noun: str) -> str:
    """More than one of a noun: "shards", "classes", "batches"."""
    return noun + ("es" if noun.endswith(("s", "ch")) else "s")


def rate(count: float, seconds: float, noun: str) -> str:
    """A speed to three digits: "0.417 images/s", "1,230 images/s"; "not timed" without time.

    Args:
        count: how many were done.
        seconds: in what time.
        noun: what, in the plural.
    """
    if seconds <= 0 or not count:
        return "not timed"
    speed = count / seconds
    digits = max(0, 3 - len(str(int(speed)))) if speed >= 1 else 3
    return f"{speed:,.{digits}f} {noun}/s"


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"
