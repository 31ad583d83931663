"""The requests of the page: JSON, bounded in size, and checked field by field."""

import asyncio
import base64
import dataclasses
import json
from typing import Any

from align_keras.errors import InputError
from align_keras.search.image_search import MAX_CLASSES, MAX_IMAGE_BYTES, Query

# An image in base64 beside texts.
_MAX_BODY = MAX_IMAGE_BYTES * 4 // 3 + (4 << 20)
# Of lists and objects, which take fifty times their bytes once they are read.
_MAX_SEPARATORS = 1 << 17
_BODY_SECONDS = 60


class RequestError(InputError):
    """What is wrong with a request, in one line."""


async def read_fields(request: Any) -> dict[str, Any]:
    """The JSON object of a request's body.

    Args:
        request: a ``starlette.requests.Request``.

    Raises:
        RequestError: if it is none, or too large or slow.
    """
    # A form of another site cannot send this kind unasked.
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RequestError("the request must be application/json")
    try:
        body = await asyncio.wait_for(_read_body(request), _BODY_SECONDS)
    except TimeoutError:
        raise RequestError(f"the request took more than {_BODY_SECONDS} s to come in") from None
    if sum(map(body.count, (b"[", b"{", b","))) > _MAX_SEPARATORS:
        raise RequestError("the request holds too many values")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise RequestError("the request is not a JSON object")
    return fields


async def _read_body(request: Any) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise RequestError(
                f"the request is too large; an image may have {MAX_IMAGE_BYTES >> 20} MiB"
            )
    return bytes(body)


def parse_query(fields: dict[str, Any]) -> tuple[Query, int]:
    """A ``Query`` and a number of results; RequestError if something is of another kind."""
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Query)}
    values = {name: _parse(name, kind, fields) for name, kind in kinds.items() if name in fields}
    return Query(**values), _parse("count", int, {"count": 24, **fields})


def parse_classification(fields: dict[str, Any]) -> tuple[bytes, list[str], str]:
    """The image, the class names and the prompt; RequestError as of ``parse_query``."""
    names = fields.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError("names must be a list of strings")
    if len(names) > MAX_CLASSES:
        raise RequestError(f"{len(names):,} classes; at most {MAX_CLASSES:,} are compared")
    fields = {"image": "", "prompt": "{}", **fields}
    return _parse("image", bytes, fields), names, _parse("prompt", str, fields)


def _parse(name: str, kind: type, fields: dict[str, Any]) -> Any:
    value = fields[name]
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return max(-1e9, min(1e9, value)) * 1.0
    if kind is bytes and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise RequestError(f"{name} is not base64") from None
    if type(value) is not kind:
        raise RequestError(f"{name} is not what it should be")
    return value
