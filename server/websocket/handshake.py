"""The opening handshake: whether an upgrade request is one, and the head that accepts it (RFC 6455, section 4.2).

The rules are those of `websockets`; the answers are ours. Extensions are never agreed to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import InvalidHandshake, InvalidMethod
from websockets.headers import parse_subprotocol
from websockets.http11 import Request
from websockets.server import ServerProtocol

from server.errors import HttpError

VERSION = "13"

RawHeaders = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_VALUE = re.compile(rb"[\x09\x20-\x7e\x80-\xff]*")


@dataclass(slots=True, frozen=True)
class Handshake:
    """A sound upgrade request: the proof that it was understood, and the subprotocols that the client offers."""

    accept: str
    subprotocols: tuple[str, ...]


def check_upgrade(method: str, http_version: str, target: str, headers: RawHeaders) -> Handshake:
    """Check an upgrade request; raises HttpError 400, 405 or 426."""
    found = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    request = Request(target, found, method, f"HTTP/{http_version}")
    _check_version(found)
    try:
        accept, _, _ = ServerProtocol().process_request(request)
        offered = [name for value in found.get_all("Sec-WebSocket-Protocol") for name in parse_subprotocol(value)]
    except InvalidMethod as error:
        raise HttpError(405, "METHOD_NOT_ALLOWED", _sentence(error), headers={"Allow": "GET"}) from error
    except InvalidHandshake as error:
        raise HttpError(400, "INVALID_UPGRADE", _sentence(error)) from error
    return Handshake(accept, tuple(offered))


def _check_version(headers: Headers) -> None:
    try:
        version = headers.get("Sec-WebSocket-Version")
    except MultipleValuesError:
        return  # refused as malformed
    if version is not None and version != VERSION:
        message = f"Version {version!r} of the WebSocket protocol is not known; {VERSION} is."
        more = {"Sec-WebSocket-Version": VERSION, "Upgrade": "websocket", "Connection": "Upgrade"}
        raise HttpError(426, "UPGRADE_REQUIRED", message, headers=more)


def _sentence(error: BaseException) -> str:
    return f"The WebSocket upgrade is not valid: {error.__cause__ or error}."


def accept_head(handshake: Handshake, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the answer that accepts; raises ValueError for headers that would break it."""
    parts = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
        handshake.accept.encode(),
        b"\r\n",
    ]
    if subprotocol is not None:
        if subprotocol not in handshake.subprotocols:
            raise ValueError(f"The client did not offer the subprotocol {subprotocol!r}")
        parts += (b"sec-websocket-protocol: ", subprotocol.encode(), b"\r\n")
    return b"".join([*parts, *_lines(headers), b"\r\n"])


def denial_head(status_line: bytes, headers: Iterable[tuple[bytes, bytes]], length: int) -> bytes:
    """Return the head of an answer that refuses and closes; raises ValueError for headers that would break it."""
    kept = [
        (name, value)
        for name, value in headers
        if name.lower() not in {b"content-length", b"transfer-encoding", b"connection"}
    ]
    return b"".join([status_line, *_lines(kept), b"content-length: %d\r\nconnection: close\r\n\r\n" % length])


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"Header {name!r} has characters that headers cannot have")
        yield b"%b: %b\r\n" % (name, value)
