"""The requests of the page: JSON, limited in size and checked field by field."""

import asyncio
import base64
import collections
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

from align_keras.errors import InputError
from align_keras.search.image_search import MAX_CLASSES, MAX_IMAGE_BYTES, Query

# An image in base64, and texts.
_MAX_BODY = MAX_IMAGE_BYTES * 4 // 3 + (4 << 20)
#: Bodies up to this size are short. Their number is limited by the number of connections.
SHORT_BODY = 1 << 16
# Limits on the total size of longer bodies: for all clients, and for one client.
_MAX_BUFFERED, _MAX_OF_A_CLIENT = 3 * _MAX_BODY, 2 * _MAX_BODY
# Maximum number of lists, objects and commas: parsed JSON takes up to fifty times its bytes.
_MAX_SEPARATORS = 1 << 17
# Time limits for waiting for memory, for the next part of a body, and for an entire body.
_ROOM_SECONDS, _PART_SECONDS, _BODY_SECONDS = 30, 10, 60


class RequestError(InputError):
    """The fault in a request, in one line, and the HTTP status of the response."""

    def __init__(self, problem: str, status: int = 400) -> None:
        super().__init__(problem)
        self.status = status

    @property
    def is_unread(self) -> bool:
        """Whether the request was rejected before its body was read."""
        return self.status in (411, 413, 415, 503)


class BodyReader:
    """Reads the bodies of requests; limits the number of bytes in memory."""

    def __init__(self) -> None:
        self._taken: collections.Counter[str] = collections.Counter()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def read(self, request: Any) -> AsyncIterator[bytearray]:
        """Inside the block, memory for the body of a request is reserved, and the body is read.

        Args:
            request: a ``starlette.requests.Request``.

        Raises:
            RequestError: if the header does not state JSON, the body is too large or slow, or there
                is no memory for it.
        """
        # A form on another site cannot send this content type without permission.
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise RequestError("the request must be application/json", 415)
        size = request.headers.get("content-length", "")
        if not (size.isascii() and size.isdigit()):
            raise RequestError("the request must have a Content-Length", 411)
        # int() fails on thousands of digits.
        if len(size) > 20 or int(size) > _MAX_BODY:
            raise RequestError(
                f"the request is too large; the limit for an image is {MAX_IMAGE_BYTES >> 20} MiB",
                413,
            )
        client = request.client.host if request.client else ""
        async with self._room(client, int(size)):
            yield await _read_body(request, int(size))

    @contextlib.asynccontextmanager
    async def _room(self, client: str, size: int) -> AsyncIterator[None]:
        if size <= SHORT_BODY:
            yield
            return

        def is_room() -> bool:
            free = _MAX_BUFFERED - self._taken.total(), _MAX_OF_A_CLIENT - self._taken[client]
            return size <= min(free)

        try:
            async with asyncio.timeout(_ROOM_SECONDS), self._changed:
                await self._changed.wait_for(is_room)
                self._taken[client] += size
        except TimeoutError:
            raise RequestError("too many uploads at a time; try again", 503) from None
        try:
            yield
        finally:
            self._taken[client] -= size
            self._taken += collections.Counter()  # drops clients that have no bytes left
            async with self._changed:
                self._changed.notify_all()


async def _read_body(request: Any, size: int) -> bytearray:
    # Allocated in full size: a growing buffer is copied and fragments memory.
    body, end = bytearray(size), 0
    parts = aiter(request.stream())
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while end < size:
                async with asyncio.timeout(_PART_SECONDS):
                    part = await anext(parts)
                body[end : end + len(part)] = part
                end += len(part)
    except TimeoutError:
        raise RequestError("the request took too long to arrive", 408) from None
    return body


async def discard_body(request: Any) -> None:
    """Lets a rejected client finish sending, since most clients read a response only then."""
    from starlette.requests import ClientDisconnect

    if "expect" in request.headers:  # the client waits for permission to send the body
        return
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_PART_SECONDS):
            async for _ in request.stream():
                pass


def parse_fields(body: bytearray) -> dict[str, Any]:
    """The JSON object in a body; raises RequestError if the body is not one."""
    if sum(map(body.count, (b"[", b"{", b","))) > _MAX_SEPARATORS:
        raise RequestError("the request holds too many values")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise RequestError("the request is not a JSON object")
    return fields


def parse_query(fields: dict[str, Any]) -> tuple[Query, int]:
    """A ``Query`` and the number of results; raises RequestError if a field has the wrong type."""
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Query)}
    values = {name: _parse(name, kind, fields) for name, kind in kinds.items() if name in fields}
    return Query(**values), _parse("count", int, {"count": 24, **fields})


def parse_classification(fields: dict[str, Any]) -> tuple[bytes, list[str], str]:
    """The image, the class names and the prompt; raises RequestError as ``parse_query`` does."""
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
        raise RequestError(f"{name} has the wrong type")
    return value
