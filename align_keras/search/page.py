"""A page to search an index on and to classify images, as a function of an ``ImageSearch``.

An ASGI app of a few routes and four static files: it opens no path that a request names, so
what a browser can get is those files and the thumbnails that the index holds. Requests are bounded
in size and number, the page loads nothing from elsewhere, and nothing is sent anywhere.
"""

import asyncio
import base64
import dataclasses
import json
import logging
import socket
from pathlib import Path

from align_keras.preprocessing.images import MAX_PIXELS
from align_keras.search.image_search import MAX_CLASSES, MAX_IMAGE_BYTES, Query

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
# An image in base64 beside texts.
_MAX_BODY = MAX_IMAGE_BYTES * 4 // 3 + (4 << 20)
# Of lists and objects, which take fifty times their bytes once they are read.
_MAX_SEPARATORS = 1 << 17
_BODY_SECONDS = 60
# Bodies in memory, and images decoded and embedded, at a time; the others wait.
_READING, _WORKING = 8, 2
_MAX_CONNECTIONS = 256
_LOOPBACK = ("127.0.0.1", "localhost")


class RequestError(ValueError):
    """What is wrong with a request, in one line."""


def require_starlette():
    """Raises a ValueError, which says how to get them, if the page's libraries are not there."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ValueError(
            "serve needs starlette and uvicorn; pip install 'align-keras[page]'"
        ) from None


def build_page(search, probes=None, hosts=("*",)):
    """The page as an ASGI app.

    Args:
        search: an ``ImageSearch``; several threads use it at a time.
        probes: lists of a large index to look into; None for the default.
        hosts: by which names browsers may call the server, ``"*"`` for any.

    Returns:
        A ``starlette.applications.Starlette``.
    """
    import anyio
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    reading, working = anyio.CapacityLimiter(_READING), anyio.CapacityLimiter(_WORKING)

    def file_route(path, name, kind):
        content = (Path(__file__).parent / "page_files" / name).read_bytes()
        return Route(path, lambda _: Response(content, media_type=kind, headers=_HEADERS))

    async def about(_):
        header = search.index.header
        return JSONResponse(
            {
                "images": header.count,
                "search": f"in {header.lists:,} lists" if search.index.is_approximate else "exact",
                "thumbnails": header.thumbnail_size > 0,
                "limits": {"imageBytes": MAX_IMAGE_BYTES, "pixels": MAX_PIXELS},
            },
            headers=_HEADERS,
        )

    async def thumbnail(request):
        place = request.path_params["place"]
        if place >= len(search.index):
            return Response(status_code=404, headers=_HEADERS)
        try:
            data = search.index.thumbnail(place)
        except ValueError as error:
            logger.error("%s", error)
            data = b""
        status = 200 if data else 404
        return Response(data, status, media_type="image/jpeg", headers=_HEADERS)

    def find(fields):
        query, count = parse_query(fields)
        found = search.find(query, count, probes)
        names = ("place", "score", "name", "caption")
        return {"matches": [{name: getattr(match, name) for name in names} for match in found]}

    def classify(fields):
        return {"classes": list(search.classify(*parse_classification(fields)).items())}

    def answer_route(path, answer):
        async def route(request):
            try:
                async with reading:
                    fields = await read_fields(request)
                    result = await anyio.to_thread.run_sync(answer, fields, limiter=working)
                return JSONResponse(result, headers=_HEADERS)
            except ValueError as error:
                return JSONResponse({"error": str(error)}, 400, headers=_HEADERS)
            except Exception:  # whatever it is, the others' requests go on
                logger.exception("%s failed", path)
                line = "the server failed on this request; its log says why"
                return JSONResponse({"error": line}, 500, headers=_HEADERS)

        return Route(path, route, methods=["POST"])

    return Starlette(
        routes=[
            *(file_route(path, *file) for path, file in _FILES.items()),
            Route("/about", about),
            Route("/thumbnail/{place:int}", thumbnail),
            answer_route("/search", find),
            answer_route("/classify", classify),
        ],
        # Else a page from elsewhere could ask through a name that leads here.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def serve(search, host, port, probes=None):
    """Serves the page until interrupted, and prints its address.

    Raises:
        ValueError: if the address cannot be listened on.
    """
    hosts = _LOOPBACK if host in _LOOPBACK else ("*",)
    with listen(host, port) as listener:
        print(f"http://{host}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        build_server(build_page(search, probes, hosts)).run(sockets=[listener])


def listen(host, port):
    """A socket that listens; ValueError, which names the flags, if it cannot."""
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port: must be from 0 to 65,535, not {port}")
    try:
        return socket.create_server((host, port))
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--host, --port: cannot listen on {host}:{port}: {reason}") from None


def build_server(app):
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


# === Requests ===


async def read_fields(request):
    """The JSON object of a request's body; RequestError if it is none, or too large or slow."""
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
        raise RequestError("the request is no JSON object")
    return fields


async def _read_body(request):
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise RequestError(
                f"the request is too large; an image may have {MAX_IMAGE_BYTES >> 20} MiB"
            )
    return bytes(body)


def parse_query(fields):
    """A ``Query`` and a number of results; RequestError if something is of another kind."""
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Query)}
    values = {name: _parse(name, kind, fields) for name, kind in kinds.items() if name in fields}
    return Query(**values), _parse("count", int, {"count": 24, **fields})


def parse_classification(fields):
    """The image, the class names and the prompt."""
    names = fields.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError("names must be a list of strings")
    if len(names) > MAX_CLASSES:
        raise RequestError(f"{len(names):,} classes; at most {MAX_CLASSES:,} are compared")
    fields = {"image": "", "prompt": "{}", **fields}
    return _parse("image", bytes, fields), names, _parse("prompt", str, fields)


def _parse(name, kind, fields):
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
