"""The address of the page's server, taken before a model is loaded."""

import socket

from align_keras.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: a name, or an address of IPv4 or IPv6, such as ``::1``.
        port: 0 for any that is free.

    Raises:
        InputError: if it cannot.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(f"must be from 0 to 65,535, not {port}", setting="port")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name of both kinds is that of its IPv4 address.
        family, *_, address = min(found, key=lambda entry: entry[0])
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            remedy="give another <host> or <port>",
        ) from None
