"""The Python client of the benches of topics: one answer a request, wherever its bytes are cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from benches.http_client import HttpClient, post_head
from benches.web import RequestFailed

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"a":"\r\n\r"}'


def exchanged(chunks: list[bytes], count: int, work: Callable[[HttpClient], Awaitable[object]]) -> bytes:
    """Answer that many requests with the chunks, one `send` each, then end; what the server has received."""
    received = bytearray()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += stream.readline()
                received.extend(head + stream.read(int(head.rpartition(b"Content-Length: ")[2])))
                for chunk in chunks:
                    connection.sendall(chunk)

    async def run(port: int) -> None:
        client = await HttpClient.connect(port)
        try:
            await work(client)
        finally:
            client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        uvloop.run(run(listener.getsockname()[1]))
        thread.join()
    return bytes(received)


@pytest.mark.parametrize("size", [1, 7, len(ANSWER) - 1, len(ANSWER)])
def test_an_answer_may_be_cut_anywhere(size: int) -> None:
    async def work(client: HttpClient) -> None:
        for body in (b"one", b"", b"three"):
            assert await client.post(post_head(80, "/x", {"A": "b"}), body) == b'{"a":"\r\n\r"}'

    chunks = [ANSWER[start : start + size] for start in range(0, len(ANSWER), size)]
    sent = exchanged(chunks, 3, work)
    head = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\nA: b\r\nContent-Length: "
    assert sent == head + b"3\r\n\r\none" + head + b"0\r\n\r\n" + head + b"5\r\n\r\nthree"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\nlate", "410 b'late'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "without Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", "ended the connection"),
        (b"", "ended the connection"),
    ],
)
def test_what_is_no_whole_answer_fails_the_request(answer: bytes, told: str) -> None:
    async def work(client: HttpClient) -> None:
        with pytest.raises(RequestFailed, match=told):
            await client.post(post_head(80, "/x", {}), b"{}")

    exchanged([answer], 1, work)
