"""The server below the page: it listens, and no client keeps others out.

Uvicorn reads HTTP, as one would have to otherwise; it bounds neither how long a request may take
to come in nor how many connections a client has, so a subclass of its protocol does.
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
# Of glibc's malloc.h; larger blocks than this go back to the system at once.
_M_MMAP_THRESHOLD, _KEPT_BLOCK = -3, 1 << 20
# From the connection, or the answer before, to the end of a request's head; a request in all.
_HEAD_SECONDS, _REQUEST_SECONDS = 10, 300
# For requests under way, once the server is to end.
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
        search: what the page asks.
        listener: as returned by ``listening.listen``; it is closed.
        host: by which name or address it listens.
        probes: lists of a large index to look into; None for the default.
        allowed_hosts: names by which browsers may call the server, beside ``host`` and those of
            this machine to itself.
        name_of: how a setting is called where the user reads it.

    Raises:
        InputError: if an allowed host is not a name.
    """
    with listener:
        app = build_page(search, probes, (*LOOPBACK, host, *allowed_hosts), name_of)
        search.warm_up()
        _return_memory()
        name = f"[{host}]" if ":" in host else host
        print(f"http://{name}:{listener.getsockname()[1]}  (Ctrl-C to stop)", flush=True)
        build_server(app).run(sockets=[listener])


def _return_memory() -> None:
    """Lets the memory of a large upload or image go back to the system once it is answered.

    glibc learns from each large block that is freed to keep the next one of that size. What is
    loaded by now stays, so that looking for garbage among the rest takes no time.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)


def build_server(app: Any) -> uvicorn.Server:
    """A ``uvicorn.Server`` of the app, with bounds on its connections."""
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
    """A connection that has to send a request soon, and is one of a bounded number.

    Above the number, of a client or of all, the connection that has been silent for longest gives
    way: those that only hold a place never keep out those that ask. If all ask, the new one gets a
    503.
    """

    clock: asyncio.TimerHandle | None = None
    is_silent = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Asyncio's hook: a client has connected."""
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
        """Asyncio's hook: bytes have arrived."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Uvicorn's hook: an answer is written."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's hook: the connection is gone."""
        super().connection_lost(exc)
        self._unset_clock()

    def send_400_response(self, msg: str) -> None:
        """Uvicorn's hook: the request is not HTTP. A response may have begun already."""
        if self.cycle is None or not self.cycle.response_started:
            self._refuse(400, "Bad Request", "not a request of HTTP/1.1")
        else:
            self.transport.abort()

    def _watch(self) -> None:
        """Sets the clock whenever a request has begun or been answered."""
        is_silent = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or (self.clock and is_silent == self.is_silent):
            return
        self._unset_clock()
        self.is_silent = is_silent
        seconds = _HEAD_SECONDS if is_silent else _REQUEST_SECONDS
        # Closing would wait for a client that does not read its answer.
        self.clock = self.loop.call_later(seconds, self.transport.abort)

    def _unset_clock(self) -> None:
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def _refuse(self, status: int, reason: str, line: str) -> None:
        """Answers by hand, whatever state the request is in, and hangs up."""
        headers = {**HEADERS, "Content-Type": "text/plain", "Content-Length": str(len(line))}
        headers |= {"Connection": "close"} | ({"Retry-After": RETRY_AFTER} if status == 503 else {})
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {status} {reason}\r\n{head}\r\n{line}".encode())
        self.transport.close()


def _host(connection: Any) -> str:
    return connection.client[0] if connection.client else ""
