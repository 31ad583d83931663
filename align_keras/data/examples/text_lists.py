"""Lists of captions written as text, for example in a CSV: as JSON or as Python prints them."""

import ast
import json
import re
import warnings

from align_keras.data.examples.example import NoCaption

_TEXT = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""
_ITEM = re.compile(rf"{_TEXT}|None|nan|null", re.DOTALL)
# NumPy prints no commas between items.
_TUPLE = re.compile(rf"\((?:(?:{_ITEM.pattern})\s*+,\s*+)++(?:{_ITEM.pattern})?+\s*+\)", re.DOTALL)
_LIST = re.compile(rf"\[\s*+(?:(?:{_ITEM.pattern})[\s,]*+)*+\]", re.DOTALL)


def parsed(text: str, is_list: bool) -> str | list:
    """The list that a text holds, or the text itself if it holds none.

    Args:
        text: a field.
        is_list: whether the column holds lists. In other columns only a list of strings counts as a
            list, since ``[1]`` may be a caption.

    Returns:
        A list, or the text. In a column of lists, a text in brackets that cannot be read gives a
        list with one ``NoCaption``.
    """
    stripped = text.strip()
    if _TUPLE.fullmatch(stripped):
        stripped = f"[{stripped[1:-1]}]"
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return text
    found = _items(stripped)
    if found is None:
        reason = "captions is a list that cannot be read; write it as JSON"
        return [NoCaption(reason, is_there=True)] if is_list else text
    has_text = not found or any(isinstance(item, str) for item in found)
    return found if is_list or has_text else text


def _items(text: str) -> list | None:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if not _LIST.fullmatch(text):
        return None
    with warnings.catch_warnings():
        # Suppresses warnings about escapes that Python does not know.
        warnings.simplefilter("ignore")
        try:
            return [
                ast.literal_eval(item) if item[0] in "'\"" else None for item in _ITEM.findall(text)
            ]
        except (ValueError, SyntaxError):
            return None
