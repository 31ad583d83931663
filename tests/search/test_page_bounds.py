"""Requests that would block other clients or fill the memory, sent by hand over a socket."""

import asyncio
import socket
import threading
import time
import types

import pytest
from page_client import ask, exchange, open_socket, read_all

from align_keras.search import listening, page, page_server, requests
from align_keras.search.page_guard import HEADERS
from align_keras.search.pixel_budget import PixelBudget, pixels_of
from align_keras.search.text_batches import Batches

POST = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def still_answers(address):
    assert ask(address, "/search", {"text": "a red ring", "count": 1})[0] == 200


# === Connections ===


def test_connections_that_send_nothing_give_way(page_address, monkeypatch):
    monkeypatch.setattr(page_server, "_OF_A_CLIENT", 8)
    monkeypatch.setattr(page_server, "_HEAD_SECONDS", 300)
    silent = [open_socket(page_address) for _ in range(20)]
    started = time.monotonic()
    still_answers(page_address)
    assert time.monotonic() - started < 60
    assert read_all(silent[0]) == b""  # the server has closed the oldest one
    for connection in silent:
        connection.close()


def test_where_all_ask_the_next_is_reported_to_come_again(page_address, monkeypatch):
    monkeypatch.setattr(page_server, "_OF_A_CLIENT", 2)
    asking = [open_socket(page_address) for _ in range(2)]
    for connection in asking:
        connection.sendall(POST + b"Content-Length: 99\r\n\r\n{")
    answer, until = b"", time.monotonic() + 60
    # The server may still have to read what the others sent.
    while not answer.startswith(b"HTTP/1.1 503 ") and time.monotonic() < until:
        time.sleep(0.1)
        answer = exchange(page_address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    check_headers(answer)
    for connection in asking:
        connection.close()
    monkeypatch.undo()
    still_answers(page_address)


def test_what_comes_in_slowly_is_cut_off(page_address, monkeypatch):
    monkeypatch.setattr(page_server, "_HEAD_SECONDS", 0.2)
    monkeypatch.setattr(requests, "_PART_SECONDS", 0.2)
    assert exchange(page_address, b"") == b""
    assert exchange(page_address, b"GET / HTTP/1.1\r\nHost: local") == b""
    answer = exchange(page_address, POST + b"Content-Length: 99\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    # The limit also applies after an answer, and while bytes keep arriving.
    with open_socket(page_address) as connection:
        connection.sendall(b"GET /page.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < 5:
                connection.sendall(b"G")
                time.sleep(0.05)


def test_clients_that_hang_up_cost_no_line(page_address, caplog):
    body = POST + b"Content-Length: 18\r\n\r\n" + b'{"text": "a ring"}'
    for sent in (b"", b"G", POST, body[:-9], body):
        with open_socket(page_address) as connection:
            connection.sendall(sent)
    still_answers(page_address)
    assert not caplog.records


# === Invalid requests ===


def check_headers(answer):
    head = answer.partition(b"\r\n\r\n")[0].decode().lower()
    for name, value in HEADERS.items():
        assert f"\r\n{name}: {value}".lower() in head, answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /search HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /thumbnail/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"9" * 5000), 404),
        (b"GET /thumbnail/%D9%A1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"HEAD /thumbnail/0 HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"GET / HTTP/1.0\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411),
        (POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413),
        (POST + b"Expect: 100-continue\r\nContent-Length: %s\r\n\r\n" % (b"9" * 15), 413),
        (POST + b"Content-Length: 0\r\n\r\n", 400),
    ],
    ids=range(17),
)
def test_odd_requests_get_an_answer_with_the_headers(page_address, caplog, sent, status):
    answer = exchange(page_address, sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    check_headers(answer)
    assert not caplog.records


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost:1@evil.example", 421),
        ("", 421),
        ("[::2]", 421),
        ("127.0.0.2", 421),
        ("LOCALHOST.:80", 200),
        ("[0::1]:7860", 200),
    ],
)
def test_only_its_own_names_are_answered(page_address, host, status):
    for path in ("/", "/nothing", "/thumbnail/0"):
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        answer = exchange(page_address, head.encode())
        if status == 421:
            assert answer.startswith(b"HTTP/1.1 421 ")
            assert b"allowed_host" in answer
        else:
            assert not answer.startswith(b"HTTP/1.1 421 ")
        check_headers(answer)


# === Memory ===


def body_request(size, client, parts=()):
    async def stream():
        for part in parts or (b"x" * size,):
            yield part

    headers = {"content-type": "application/json", "content-length": str(size)}
    return types.SimpleNamespace(
        headers=headers, client=types.SimpleNamespace(host=client), stream=stream
    )


def test_bodies_share_a_bound_and_a_client_has_no_more_than_its_share(monkeypatch):
    monkeypatch.setattr(requests, "SHORT_BODY", 10)
    monkeypatch.setattr(requests, "_MAX_BUFFERED", 300)
    monkeypatch.setattr(requests, "_MAX_OF_A_CLIENT", 200)
    monkeypatch.setattr(requests, "_ROOM_SECONDS", 0.05)

    async def run():
        reader = requests.BodyReader()
        async with reader.read(body_request(100, "a")), reader.read(body_request(100, "a")):
            with pytest.raises(requests.RequestError, match="too many uploads") as caught:
                async with reader.read(body_request(11, "a")):
                    pass
            assert caught.value.status == 503
            async with reader.read(body_request(10, "a")) as body:  # always accepted
                assert bytes(body) == b"x" * 10
            async with reader.read(body_request(100, "b")):
                with pytest.raises(requests.RequestError, match="too many uploads"):
                    async with reader.read(body_request(100, "c")):
                        pass
        parts = (b"ab", b"c" * 97, b"d")
        async with reader.read(body_request(100, "a", parts)) as body:
            assert bytes(body) == b"".join(parts)

    asyncio.run(run())


def test_pixels_are_bounded_at_a_time(held_out_images):
    budget, together, most = PixelBudget(10), [0], [0]
    lock = threading.Lock()

    def work(amount):
        with budget.taken(amount):
            with lock:
                together[0] += min(amount, 10)
                most[0] = max(most[0], together[0])
            time.sleep(0.005)
            with lock:
                together[0] -= min(amount, 10)

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (6, 4, 30, 5, 5, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (together, most) == ([0], [10])
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\0\2"
    assert [pixels_of(data) for data in (png, b"GIF89a")] == [512, 1 << 26]
    assert 0 < pixels_of(held_out_images[0]) < 1 << 20


# === Sentences ===


def test_questions_that_wait_are_answered_together_and_faults_alone():
    import anyio

    calls = []

    def answer_all(questions):
        calls.append(len(questions))
        if 7 in questions:
            raise ZeroDivisionError
        return [ValueError("odd") if question % 2 else question for question in questions]

    async def run():
        batches = Batches(answer_all, anyio.CapacityLimiter(1))
        asked = (batches.ask(number) for number in range(200))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(run())
    kinds = [type(answer) for answer in answers[:9]]
    assert kinds[:4] == [int, ValueError, int, ValueError]
    assert kinds[7:] == [ZeroDivisionError, int]
    assert answers[0::2] == list(range(0, 200, 2))
    assert max(calls) == 64
    assert sum(count > 1 for count in calls) == 4


def test_it_listens_on_ipv6():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        listener = listening.listen("::1", 0)
    except OSError:
        pytest.skip("no IPv6 address")
    with listener:
        assert listener.getsockname()[0] == "::1"


def test_a_request_under_way_does_not_keep_it_from_ending(page_search, monkeypatch):
    monkeypatch.setattr(page_server, "_ENDING_SECONDS", 1)
    with listening.listen("127.0.0.1", 0) as listener:
        server = page_server.build_server(page.build_page(page_search))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        still_answers(address)
        with open_socket(address) as connection:
            connection.sendall(POST + b"Content-Length: 99\r\n\r\n{")
            time.sleep(0.2)
            server.should_exit = True
            thread.join(4)
            assert not thread.is_alive()
