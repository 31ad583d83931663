"""How numbers are said in lines, tables and reports."""


def counted(count: int, noun: str) -> str:
    """A number of things: "1 shard", "2,000 classes".

    Args:
        count: how many.
        noun: what, in the singular; its last word is put into the plural.
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


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
