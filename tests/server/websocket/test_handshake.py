"""Upgrade requests: which are sound, and what the others are answered."""

from __future__ import annotations

import pytest

from server.errors import HttpError
from server.websocket.handshake import accept_head, check_upgrade, denial_head

GOOD = {
    b"host": b"x",
    b"connection": b"keep-alive, Upgrade",
    b"upgrade": b"websocket",
    b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
    b"sec-websocket-version": b"13",
}


def check(changes: dict[bytes, bytes | None], method: str = "GET", version: str = "1.1"):  # type: ignore[no-untyped-def]
    headers = [(name, value) for name, value in (GOOD | changes).items() if value is not None]
    return check_upgrade(method, version, "/v1/ws?x=1", headers)


def test_the_answer_proves_that_the_key_was_read() -> None:
    handshake = check({})
    assert handshake.accept == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of RFC 6455, section 1.3
    assert handshake.subprotocols == ()


def test_subprotocols_are_read_and_extensions_ignored() -> None:
    changes = {b"sec-websocket-protocol": b"kalamdb.jwt.a-_.b, two", b"sec-websocket-extensions": b"permessage-deflate"}
    handshake = check(changes)
    assert handshake.subprotocols == ("kalamdb.jwt.a-_.b", "two")
    assert b"extensions" not in accept_head(handshake, "two", [])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({b"sec-websocket-key": None}, 400),
        ({b"sec-websocket-key": b"short"}, 400),
        ({b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ="}, 400),
        ({b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZTE="}, 400),
        ({b"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZ\xe9==".encode("latin-1")}, 400),
        ({b"sec-websocket-version": None}, 400),
        ({b"sec-websocket-version": b"8"}, 426),
        ({b"sec-websocket-version": b"13, 8"}, 426),
        ({b"sec-websocket-version": b""}, 426),
        ({b"upgrade": b"h2c, websocket"}, 400),
        ({b"upgrade": b"\xff"}, 400),
        ({b"sec-websocket-protocol": b"a b"}, 400),
        ({b"sec-websocket-protocol": b",,"}, 400),
    ],
)
def test_what_is_wrong_is_named(changes: dict[bytes, bytes | None], status: int) -> None:
    with pytest.raises(HttpError) as caught:
        check(changes)
    assert caught.value.status == status
    assert caught.value.code == {400: "INVALID_UPGRADE", 426: "UPGRADE_REQUIRED"}[status]
    assert caught.value.message.endswith(".")
    if status == 426:
        assert caught.value.headers["Sec-WebSocket-Version"] == "13"


def test_repeated_headers_are_refused() -> None:
    for name in (b"sec-websocket-key", b"sec-websocket-version"):
        with pytest.raises(HttpError) as caught:
            check_upgrade("GET", "1.1", "/", [*GOOD.items(), (name, GOOD[name])])
        assert caught.value.status == 400


def test_old_http_and_other_methods_are_refused() -> None:
    with pytest.raises(HttpError) as caught:
        check({}, version="1.0")
    assert caught.value.status == 400
    with pytest.raises(HttpError) as caught:
        check({}, method="POST")
    assert (caught.value.status, caught.value.headers) == (405, {"Allow": "GET"})


def test_heads_cannot_be_broken_by_headers() -> None:
    handshake = check({})
    for name, value in [(b"x", b"a\r\nb: c"), (b"x y", b""), (b"x\n", b""), (b"", b"v"), (b"x", b"\0")]:
        with pytest.raises(ValueError, match="cannot have"):
            accept_head(handshake, None, [(name, value)])
        with pytest.raises(ValueError, match="cannot have"):
            denial_head(b"HTTP/1.1 403 Forbidden\r\n", [(name, value)], 0)
    with pytest.raises(ValueError, match="did not offer"):
        accept_head(handshake, "other", [])


def test_a_denial_has_its_own_length_and_closes() -> None:
    head = denial_head(b"HTTP/1.1 403 Forbidden\r\n", [(b"Content-Length", b"9"), (b"x", b"y")], 5)
    assert head == b"HTTP/1.1 403 Forbidden\r\nx: y\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
