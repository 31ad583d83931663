"""Checks the host name of every request, and adds security headers to responses."""

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from align_keras.errors import InputError

logger = logging.getLogger(__name__)

#: Headers of every response.
HEADERS = {
    # Allows only content from this server, and no scripts inside the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
#: Seconds after which a client that was rejected because of the load may try again.
RETRY_AFTER = "5"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@*]+)(:\d*)?")


def require_starlette() -> None:
    """Raises an InputError, with a remedy, if starlette or uvicorn is missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise InputError(
            "serve needs starlette and uvicorn", remedy="pip install 'align-keras[page]'"
        ) from None


class Guard:
    """An ASGI app that wraps another one.

    It answers 421 to a request for a host that is not allowed. Otherwise a web site could point its
    own name here ("DNS rebinding") and read the index through the browser of an authorised user. It
    adds ``HEADERS`` to every response.

    Args:
        app: the ASGI app to wrap.
        hosts: names and addresses under which the page may be opened. The address on which a
            request arrives is allowed as well, since an address cannot be rebound like a name.
        name_of: returns the user's name of a setting.

    Raises:
        InputError: if one of ``hosts`` is not a name or address.
    """

    def __init__(self, app: Any, hosts: Iterable[str], name_of: Callable[[str], str] = str) -> None:
        self.app = app
        self.hosts = allowed_names(hosts)
        self.name_of = name_of

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles a request; ASGI's hook."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            app = self.app if self._is_allowed(scope) else self._refusal(scope)
            await app(scope, receive, send_with_headers)
        except Exception:
            # Starlette raises an error again after it has answered with 500; uvicorn would log it.
            logger.debug("answered with 500", exc_info=True)

    def _is_allowed(self, scope: Any) -> bool:
        name = host_name(_asked_host(scope))
        own = (scope.get("server") or ("",))[0]
        return name is not None and (name in self.hosts or name == host_name(own))

    def _refusal(self, scope: Any) -> Any:
        from starlette.responses import JSONResponse

        asked = host_name(_asked_host(scope))
        what = f"the name {asked[:100]}" if asked else "its name"
        return JSONResponse(
            {
                "error": f"this server refuses requests for {what}; to allow them, start it "
                f"with {self.name_of('allowed_host')}"
            },
            421,
        )


def allowed_names(hosts: Iterable[str]) -> set[str]:
    """Hosts, normalised by ``host_name``.

    Raises:
        InputError: if one is not a name or address; ``setting`` is then ``allowed_host``.
    """
    names = {host: host_name(host) for host in hosts}
    if wrong := [host for host, name in names.items() if name is None]:
        raise InputError(
            f"{wrong[0]!r} is not a name or address",
            remedy="give one such as photos.example.org",
            setting="allowed_host",
        )
    return {name for name in names.values() if name is not None}


def _asked_host(scope: Any) -> str:
    return next((value for name, value in scope["headers"] if name == b"host"), b"").decode(
        "latin1"
    )


def host_name(text: str) -> str | None:
    """A host, with or without a port, in normalised form; None if it is invalid."""
    bare = text.strip().rstrip(".").lower()
    try:
        return ipaddress.ip_address(bare).compressed
    except ValueError:
        pass
    found = _HOST.fullmatch(bare)
    if found is None:
        return None
    name = found[1].rstrip(".")
    try:
        return ipaddress.ip_address(name.strip("[]")).compressed
    except ValueError:
        return None if "[" in name else name or None
