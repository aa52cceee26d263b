"""HTTP/1.1 from Python at little cost: kept-alive connections on the event loop, one request at a time on each.

Peers are driven through their own Python clients in the same process, so Headrace's client has to be Python too. It
does what they do: encode the request, write it, parse the answer. It sends only what the benches send and reads only
answers with a `Content-Length`, which are all that they get.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from benches.web import RequestFailed

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class HttpClient(asyncio.Protocol):
    """One connection. Requests follow each other: a second one while the first waits is an error of the caller."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._body_start = 0
        self._end: int | None = None
        self._answer: asyncio.Future[bytes] | None = None

    @classmethod
    async def connect(cls, port: int) -> HttpClient:
        """Open a connection to a server on this machine."""
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    async def post(self, head: bytes, body: bytes) -> bytes:
        """Send a request whose head `post_head` made; the answer's body. Raises RequestFailed unless it is 2xx."""
        assert self._transport is not None
        assert self._answer is None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, as the event loop asks."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        self._finish(None, RequestFailed(f"the server ended the connection: {exc or 'closed'}"))

    def data_received(self, data: bytes) -> None:
        """Collect the answer; it ends where its `Content-Length` says."""
        self._received += data
        if self._end is None:
            found = self._received.find(_HEAD_END)
            if found < 0:
                return
            head = bytes(self._received[:found]).lower()
            place = head.find(_LENGTH)
            if place < 0:
                self._finish(None, RequestFailed(f"an answer without Content-Length: {head[:500]!r}"))
                return
            self._body_start = found + len(_HEAD_END)
            self._end = self._body_start + int(head[place + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._received) >= self._end:
            status, body = bytes(self._received[9:12]), bytes(self._received[self._body_start : self._end])
            self._received, self._end = bytearray(), None
            self._finish(body, None if status[:1] == b"2" else RequestFailed(f"{status.decode()} {body[:500]!r}"))

    def _finish(self, body: bytes | None, error: RequestFailed | None) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            assert body is not None
            answer.set_result(body)


def post_head(port: int, path: str, headers: Mapping[str, str]) -> bytes:
    """Head of a POST request up to the value of its `Content-Length`, which is its last header."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "Content-Length: "]).encode()
