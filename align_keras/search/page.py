"""A page to search an index on and to classify images, as a function of an ``ImageSearch``.

An ASGI app of a few routes and four static files: it opens no path that a request names, so a
browser can get those files and the thumbnails that the index holds, and nothing else. Requests are
bounded in size and number, the page loads nothing from elsewhere, and nothing is sent anywhere.
"""

import dataclasses
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from align_keras.errors import InputError
from align_keras.preprocessing.decoding.faults import MAX_PIXELS
from align_keras.search.image_search import MAX_IMAGE_BYTES, ImageSearch
from align_keras.search.requests import parse_classification, parse_query, read_fields

logger = logging.getLogger(__name__)

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
_HEADERS = {
    # Nothing but what this server gives, and no script in the page itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# Bodies in memory, and images decoded and embedded, at a time; the others wait.
_READING, _WORKING = 8, 2
_MAX_CONNECTIONS = 256
_LOOPBACK = ("127.0.0.1", "localhost")


def require_starlette() -> None:
    """Raises an InputError, which says how to get them, if the page's libraries are missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise InputError(
            "serve needs starlette and uvicorn", remedy="pip install 'align-keras[page]'"
        ) from None


def build_page(
    search: ImageSearch, probes: int | None = None, hosts: Sequence[str] = ("*",)
) -> Any:
    """The page as an ASGI app.

    Args:
        search: several threads use it at a time.
        probes: lists of a large index to look into; None for the default.
        hosts: by which names browsers may call the server, ``"*"`` for any.

    Returns:
        A ``starlette.applications.Starlette``.
    """
    import anyio
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    answers = _Answers(search, probes)
    limits = anyio.CapacityLimiter(_READING), anyio.CapacityLimiter(_WORKING)
    files = [Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()]
    return Starlette(
        routes=[
            *files,
            Route("/about", answers.about),
            Route("/thumbnail/{place:int}", answers.thumbnail),
            Route("/search", _working(answers.find, *limits), methods=["POST"]),
            Route("/classify", _working(answers.classify, *limits), methods=["POST"]),
        ],
        # Else a page from elsewhere could ask through a name that leads here.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


@dataclasses.dataclass(frozen=True)
class _Answers:
    """What the page's addresses answer."""

    search: ImageSearch
    probes: int | None

    async def about(self, request: Any) -> Any:
        index = self.search.index
        return _json(
            {
                "images": len(index),
                "search": f"in {index.header.lists:,} lists" if index.is_approximate else "exact",
                "thumbnails": index.header.thumbnail_size > 0,
                "limits": {"imageBytes": MAX_IMAGE_BYTES, "pixels": MAX_PIXELS},
            }
        )

    async def thumbnail(self, request: Any) -> Any:
        from starlette.responses import Response

        place = request.path_params["place"]
        if place >= len(self.search.index):
            return Response(status_code=404, headers=_HEADERS)
        try:
            data = self.search.index.thumbnail(place)
        except InputError as error:
            logger.error("%s", error)
            data = b""
        status = 200 if data else 404
        return Response(data, status, media_type="image/jpeg", headers=_HEADERS)

    def find(self, fields: dict[str, Any]) -> dict[str, Any]:
        query, count = parse_query(fields)
        found = self.search.find(query, count, self.probes)
        names = ("place", "score", "name", "caption")
        return {"matches": [{name: getattr(match, name) for name in names} for match in found]}

    def classify(self, fields: dict[str, Any]) -> dict[str, Any]:
        classes = self.search.classify(*parse_classification(fields))
        return {"classes": list(classes.items())}


def _file(name: str, kind: str) -> Callable[[Any], Any]:
    from starlette.responses import Response

    content = (Path(__file__).parent / "page_files" / name).read_bytes()
    return lambda _: Response(content, media_type=kind, headers=_HEADERS)


def _json(content: Any, status: int = 200) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status, headers=_HEADERS)


def _working(
    answer: Callable[[dict[str, Any]], Any], reading: Any, working: Any
) -> Callable[[Any], Any]:
    """An endpoint that reads a request's fields, and answers in a thread.

    Args:
        answer: the fields to the content of the answer.
        reading: limits how many requests are in memory.
        working: limits how many are answered at a time.
    """
    import anyio

    async def endpoint(request: Any) -> Any:
        try:
            async with reading:
                fields = await read_fields(request)
                return _json(await anyio.to_thread.run_sync(answer, fields, limiter=working))
        except InputError as error:
            return _json({"error": str(error)}, 400)
        except Exception:  # whatever it is, the others' requests go on
            logger.exception("%s failed", request.url.path)
            return _json({"error": "the server failed on this request; its log says why"}, 500)

    return endpoint


def serve(search: ImageSearch, host: str, port: int, probes: int | None = None) -> None:
    """Serves the page until interrupted, and prints its address.

    Raises:
        InputError: if the address cannot be listened on.
    """
    hosts = _LOOPBACK if host in _LOOPBACK else ("*",)
    with listen(host, port) as listener:
        print(f"http://{host}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        build_server(build_page(search, probes, hosts)).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; InputError if it cannot."""
    if not 0 <= port < 1 << 16:
        raise InputError(f"must be from 0 to 65,535, not {port}", setting="port")
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            remedy="give another <host> or <port>",
        ) from None


def build_server(app: Any) -> Any:
    """A ``uvicorn.Server`` of the app, with bounds."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
        )
    )
