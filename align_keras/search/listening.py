"""Reserves the address of the page's server before a model is loaded."""

import contextlib
import errno
import socket

from align_keras.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket.

    Args:
        host: a host name, or an IPv4 or IPv6 address such as ``::1``.
        port: 0 for any free port.

    Raises:
        InputError: if the socket cannot be opened.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(f"must be from 0 to 65,535, not {port}", setting="port")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # For a name with both kinds of address, the IPv4 address is used.
        family, *_, address = min(found, key=lambda entry: entry[0])
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        remedy = "give another <host> or <port>"
        if getattr(error, "errno", None) == errno.EADDRINUSE and (free := _free_port(address)):
            remedy = f"give another <port>, such as {free}, which is free"
        raise InputError(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            remedy=remedy,
        ) from None


def _free_port(address):
    """The first free port after a busy one; None if none of the next ports is free."""
    host, busy = address[:2]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(busy + 1, min(busy + 50, 1 << 16)):
        with contextlib.suppress(OSError), socket.create_server((host, port), family=family):
            return port
    return None
