"""Sends requests to the search page, for tests of several files."""

import base64
import json
import socket
import urllib.error
import urllib.request


def ask(address, path, fields=None, body=None, kind="application/json", **headers):
    """Posts a request; returns the status and the JSON of the answer."""
    data = json.dumps(fields).encode() if body is None else body
    request = urllib.request.Request(
        address + path, data, {"Content-Type": kind, **headers}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def text_of(data):
    return base64.b64encode(data).decode()


def places(answer):
    return [match["place"] for match in answer["matches"]]


def open_socket(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_all(connection):
    """Returns everything that the server sends before it closes the connection."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionError:
        pass
    return received


def exchange(address, sent):
    """Sends bytes unchanged; returns everything that the server sends back."""
    with open_socket(address) as connection:
        connection.sendall(sent)
        return read_all(connection)
