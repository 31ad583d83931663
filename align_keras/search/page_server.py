"""The web server of the page: listens, and prevents clients from blocking others.

Uvicorn parses HTTP. It limits neither the time for receiving a request nor the connections per
client, so a subclass of its protocol does.
"""

import asyncio
import contextlib
import ctypes
import gc
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from align_keras.search.image_search import ImageSearch
from align_keras.search.page import build_page
from align_keras.search.page_guard import HEADERS, LOOPBACK, RETRY_AFTER

_MAX_CONNECTIONS, _OF_A_CLIENT = 512, 256
# From glibc's malloc.h. Freed blocks larger than this are returned to the system at once.
_M_MMAP_THRESHOLD, _KEPT_BLOCK = -3, 1 << 20
# Time from the connection, or from the previous response, to the end of a request's headers; time
# for an entire request.
_HEAD_SECONDS, _REQUEST_SECONDS = 10, 300
# Time for requests in progress when the server stops.
_ENDING_SECONDS = 5


def serve(
    search: ImageSearch,
    listener: socket.socket,
    host: str,
    probes: int | None = None,
    allowed_hosts: Sequence[str] = (),
    name_of: Callable[[str], str] = str,
) -> None:
    """Serves the page until interrupted, and prints its address.

    Args:
        search: answers the queries of the page.
        listener: socket from ``listening.listen``; it is closed at the end.
        host: name or address on which the server listens.
        probes: number of lists to search in a large index; None for the default.
        allowed_hosts: names under which browsers may open the page, in addition to ``host`` and
            this machine's own names for itself.
        name_of: returns the user's name of a setting.

    Raises:
        InputError: if an allowed host is not a valid name.
    """
    with listener:
        app = build_page(search, probes, (*LOOPBACK, host, *allowed_hosts), name_of)
        search.warm_up()
        _return_memory()
        name = f"[{host}]" if ":" in host else host
        print(f"http://{name}:{listener.getsockname()[1]}  (Ctrl-C to stop)", flush=True)
        build_server(app).run(sockets=[listener])


def _return_memory() -> None:
    """Makes memory of a large upload or image return to the system after the response.

    By default, glibc keeps further blocks of a size once such a block has been freed. The objects
    loaded so far are excluded from garbage collection, which makes it fast.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)


def build_server(app: Any) -> uvicorn.Server:
    """A ``uvicorn.Server`` for the app, with limits on its connections."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_ENDING_SECONDS,
        )
    )


class BoundedProtocol(H11Protocol):
    """A connection that must send a request soon; the number of connections is limited.

    If there are too many connections, of one client or in total, the one that has been silent for
    longest is closed. Idle connections therefore never block active ones. If all are active, the
    new connection gets a 503.
    """

    clock: asyncio.TimerHandle | None = None
    is_silent = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; a hook of asyncio."""
        super().connection_made(transport)
        self._watch()
        everyone = [other for other in self.connections if not other.transport.is_closing()]
        own = [other for other in everyone if _host(other) == _host(self)]
        for crowd, most in ((own, _OF_A_CLIENT), (everyone, _MAX_CONNECTIONS)):
            if len(crowd) > most and not transport.is_closing():
                silent = [other for other in crowd if other.is_silent and other is not self]
                if silent:
                    min(silent, key=lambda other: other.clock.when()).transport.abort()
                else:
                    self._refuse(503, "Service Unavailable", "too many requests at a time")

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived; a hook of asyncio."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """A response has been written; a hook of uvicorn."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed; a hook of asyncio."""
        super().connection_lost(exc)
        self._unset_clock()

    def send_400_response(self, msg: str) -> None:
        """The request is not HTTP; a hook of uvicorn. A response may already have begun."""
        if self.cycle is None or not self.cycle.response_started:
            self._refuse(400, "Bad Request", "not an HTTP/1.1 request")
        else:
            self.transport.abort()

    def _watch(self) -> None:
        """Restarts the timer whenever a request begins or has been answered."""
        is_silent = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or (self.clock and is_silent == self.is_silent):
            return
        self._unset_clock()
        self.is_silent = is_silent
        seconds = _HEAD_SECONDS if is_silent else _REQUEST_SECONDS
        # Aborts, since closing would wait for a client that does not read its response.
        self.clock = self.loop.call_later(seconds, self.transport.abort)

    def _unset_clock(self) -> None:
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def _refuse(self, status: int, reason: str, line: str) -> None:
        """Writes a response, whatever the state of the request, and closes the connection."""
        headers = {**HEADERS, "Content-Type": "text/plain", "Content-Length": str(len(line))}
        headers |= {"Connection": "close"} | ({"Retry-After": RETRY_AFTER} if status == 503 else {})
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {status} {reason}\r\n{head}\r\n{line}".encode())
        self.transport.close()


def _host(connection: Any) -> str:
    return connection.client[0] if connection.client else ""
