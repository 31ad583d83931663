"""A web page to search an index and classify images, built on an ``ImageSearch``.

It is an ASGI app with a few routes and four static files, and opens no path named in a request. A
browser can get only those files, the thumbnails in the index and, if the user states where they
are, the indexed images. Requests are limited in size and number. The page loads nothing from other
sites and sends nothing to them.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from align_keras.errors import InputError
from align_keras.preprocessing.decoding.faults import MAX_PIXELS
from align_keras.search.image_search import MAX_IMAGE_BYTES, ImageSearch, Match, value_or_raise
from align_keras.search.page_guard import LOOPBACK, RETRY_AFTER, Guard
from align_keras.search.requests import (
    SHORT_BODY,
    BodyReader,
    RequestError,
    discard_body,
    parse_classification,
    parse_fields,
    parse_query,
)
from align_keras.search.text_batches import Batches
from align_keras.wording import counted

logger = logging.getLogger(__name__)

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
# Number of requests with images that are processed at the same time; others wait.
_WORKING = 2


def build_page(
    search: ImageSearch,
    probes: int | None = None,
    hosts: Sequence[str] = LOOPBACK,
    name_of: Callable[[str], str] = str,
) -> Any:
    """The web page as an ASGI app.

    Args:
        search: used by several threads at the same time.
        probes: number of lists to search in a large index; None for the default.
        hosts: host names under which browsers may open the page.
        name_of: returns the user's name of a setting, for the message about a refused host.

    Raises:
        InputError: if one of ``hosts`` is not a name or address.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    answers = _Answers(search, probes)
    files = [Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()]
    app = Starlette(
        routes=[
            *files,
            Route("/about", answers.about),
            Route("/thumbnail/{place}", answers.thumbnail),
            Route("/original/{place}", answers.original),
            Route("/search", _reading(answers.body, answers.find), methods=["POST"]),
            Route("/classify", _reading(answers.body, answers.classify), methods=["POST"]),
        ],
        exception_handlers={500: _failed},
    )
    return Guard(app, hosts, name_of)


class _Answers:
    """The handlers of the routes of the page."""

    def __init__(self, search: ImageSearch, probes: int | None) -> None:
        import anyio

        self.search = search
        self.probes = probes
        self.body = BodyReader()
        self._working = anyio.CapacityLimiter(_WORKING)
        self._sentences = Batches(
            lambda asked: search.find_all(asked, probes), anyio.CapacityLimiter(1)
        )

    async def about(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        index = self.search.index
        return JSONResponse(
            {
                "images": len(index),
                "search": f"in {counted(index.header.lists, 'list')}"
                if index.is_approximate
                else "exact",
                "thumbnails": index.header.thumbnail_size > 0,
                "limits": {"imageBytes": MAX_IMAGE_BYTES, "pixels": MAX_PIXELS},
            }
        )

    async def thumbnail(self, request: Any) -> Any:
        from starlette.responses import Response

        data = self._picture(request.path_params["place"], self.search.index.thumbnail)
        return Response(data, 200 if data else 404, media_type="image/jpeg")

    async def original(self, request: Any) -> Any:
        from starlette.responses import Response

        place = request.path_params["place"]
        data = await self._in_thread(lambda: self._picture(place, self.search.original))
        return Response(data, 200 if data else 404, media_type="image/jpeg")

    def _picture(self, digits: str, picture: Callable[[int], bytes]) -> bytes:
        """The picture of an image; empty if ``digits`` is not the index of an image."""
        # int() accepts digits of all scripts, and fails on thousands of digits.
        is_number = digits.isascii() and digits.isdigit() and len(digits) < 20
        if not is_number or int(digits) >= len(self.search.index):
            return b""
        try:
            return picture(int(digits))
        except InputError as error:
            logger.error("%s", error)
            return b""

    async def find(self, body: bytearray) -> dict[str, Any]:
        if len(body) <= SHORT_BODY:
            query, count = parse_query(parse_fields(body))
            if not query.image:
                return self._matches(await self._sentences.ask((query, count)))
        return await self._in_thread(self._find_image, body)

    async def classify(self, body: bytearray) -> dict[str, Any]:
        return await self._in_thread(self._classify_image, body)

    async def _in_thread(self, answer: Callable[..., Any], *arguments: Any) -> Any:
        import anyio

        return await anyio.to_thread.run_sync(answer, *arguments, limiter=self._working)

    def _find_image(self, body: bytearray) -> dict[str, Any]:
        asked = parse_query(_taken(body))
        return self._matches(value_or_raise(*self.search.find_all([asked], self.probes)))

    def _matches(self, found: Sequence[Match]) -> dict[str, Any]:
        names, originals = ("place", "score", "name", "caption"), self.search.originals
        return {
            "matches": [
                {name: getattr(match, name) for name in names}
                | {"original": originals is not None and originals.has(match.name)}
                for match in found
            ]
        }

    def _classify_image(self, body: bytearray) -> dict[str, Any]:
        classes = self.search.classify(*parse_classification(_taken(body)))
        return {"classes": list(classes.items())}


def _taken(body: bytearray) -> dict[str, Any]:
    """The fields of a body, which is emptied so that memory holds it twice only during parsing."""
    fields = parse_fields(body)
    body.clear()
    return fields


def _file(name: str, kind: str) -> Callable[[Any], Any]:
    from starlette.responses import Response

    content = (Path(__file__).parent / "page_files" / name).read_bytes()
    return lambda _: Response(content, media_type=kind)


def _failed(request: Any, error: Exception) -> Any:
    from starlette.responses import JSONResponse

    # Logged before the response, so that the log entry exists when the user looks for it.
    logger.error("%r failed", request.url.path[:200], exc_info=error)
    return JSONResponse({"error": "the server failed on this request; its log says why"}, 500)


def _reading(reader: BodyReader, answer: Callable[[bytearray], Any]) -> Callable[[Any], Any]:
    """An endpoint that reads the body of a request and answers it."""
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, Response

    async def endpoint(request: Any) -> Any:
        is_long = False
        try:
            async with reader.read(request) as body:
                is_long = len(body) > SHORT_BODY
                return JSONResponse(await answer(body))
        except ClientDisconnect:
            return Response(status_code=400)  # the client is gone
        except InputError as error:
            status, headers = 400, None
            if isinstance(error, RequestError):
                status = error.status
                headers = {"Retry-After": RETRY_AFTER} if status == 503 else None
                if error.is_unread:
                    await discard_body(request)
            refusal = JSONResponse({"error": str(error)}, status, headers)
        if is_long:
            # TensorFlow's errors refer to themselves and, through their stacks, to the image.
            gc.collect()
        return refusal

    return endpoint
