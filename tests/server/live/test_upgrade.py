"""Which pages may connect, which tokens count, and what an upgrade agrees on."""

from __future__ import annotations

from typing import Any

import pytest

from server.auth.cookies import Cookies
from server.auth.options import AuthOptions
from server.config import CorsSection, SecuritySection
from server.errors import HttpError
from server.exchange import Exchange
from server.live.messages import Compression, Protocol, Serialization
from server.live.upgrade import TokenSource, UpgradeRequest, Upgrades

HOST = (b"host", b"db.example.com:2900")
OWN = (b"origin", b"http://db.example.com:2900")
FOREIGN = (b"origin", b"https://evil.example.com")
COOKIE = (b"cookie", b"a=b; headrace_auth=tok; c=d")
BEARER = (b"authorization", b"Bearer tok")
NAMED = SecuritySection(cors=CorsSection(allowed_origins=("https://app.example.com/",), allow_credentials=True))
APP = (b"origin", b"https://app.example.com")


def read(
    *headers: tuple[bytes, bytes],
    security: SecuritySection | None = None,
    query: bytes = b"",
    subprotocols: tuple[str, ...] = (),
) -> UpgradeRequest:
    scope: dict[str, Any] = {
        "type": "websocket", "headers": list(headers), "query_string": query, "subprotocols": list(subprotocols),
    }  # fmt: skip
    upgrades = Upgrades(security or SecuritySection(), Cookies(AuthOptions()))
    return upgrades.read(scope, Exchange(scope, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origin", "security", "refused"),
    [
        (None, SecuritySection(), None),
        (FOREIGN, SecuritySection(), None),
        (FOREIGN, SecuritySection(cors=CorsSection(allowed_origins=("*",))), None),
        (APP, NAMED, None),
        (FOREIGN, NAMED, "Origin not allowed"),
        ((b"origin", b"https://app.example.com.evil.com"), NAMED, "Origin not allowed"),
        ((b"origin", b"http://app.example.com"), NAMED, "Origin not allowed"),
        ((b"origin", b"null"), NAMED, "Origin not allowed"),
        (OWN, NAMED, "Origin not allowed"),
        (None, NAMED, None),
        (None, SecuritySection(strict_ws_origin_check=True), "Origin header required"),
        (FOREIGN, SecuritySection(strict_ws_origin_check=True), None),
    ],
)
def test_origins(origin: tuple[bytes, bytes] | None, security: SecuritySection, refused: str | None) -> None:
    headers = [HOST] if origin is None else [HOST, origin]
    if refused is None:
        assert read(*headers, security=security).token is None
        return
    with pytest.raises(HttpError) as caught:
        read(*headers, security=security)
    assert (caught.value.status, caught.value.message) == (403, refused)


@pytest.mark.parametrize(
    ("headers", "security", "token"),
    [
        ((HOST, OWN, COOKIE), SecuritySection(), "tok"),
        ((HOST, (b"origin", b"https://DB.example.com:2900"), COOKIE), SecuritySection(), "tok"),
        ((HOST, OWN, (b"cookie", b"kalamdb_auth=tok")), SecuritySection(), "tok"),
        ((HOST, COOKIE), SecuritySection(), None),
        ((HOST, FOREIGN, COOKIE), SecuritySection(), None),
        ((HOST, (b"origin", b"http://db.example.com"), COOKIE), SecuritySection(), None),
        ((HOST, (b"origin", b"null"), COOKIE), SecuritySection(), None),
        (((b"host", b""), (b"origin", b"http://"), COOKIE), SecuritySection(), None),
        ((HOST, (b"origin", b"file://db.example.com:2900"), COOKIE), SecuritySection(), None),
        ((HOST, FOREIGN, COOKIE), SecuritySection(cors=CorsSection(allowed_origins=("*",))), None),
        ((HOST, APP, COOKIE), NAMED, "tok"),
        ((HOST, APP, COOKIE), SecuritySection(cors=CorsSection(allowed_origins=("https://app.example.com",))), None),
        ((HOST, OWN, (b"cookie", b"headrace_refresh=tok")), SecuritySection(), None),
    ],
)
def test_a_cookie_counts_for_our_own_pages_only(
    headers: tuple[tuple[bytes, bytes], ...], security: SecuritySection, token: str | None
) -> None:
    found = read(*headers, security=security)
    assert found.token == token
    assert found.source is (None if token is None else TokenSource.COOKIE)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ((COOKIE,), "tok"),
        ((COOKIE, (b"sec-fetch-site", b"same-origin")), "tok"),
        ((COOKIE, (b"sec-fetch-site", b"none")), "tok"),
        ((COOKIE, (b"sec-fetch-site", b"cross-site")), None),
        ((COOKIE, (b"sec-fetch-site", b"same-site")), None),
        ((COOKIE, HOST, OWN), "tok"),
        ((COOKIE, HOST, FOREIGN), None),
        ((), None),
    ],
)
def test_cookies_of_event_streams(headers: tuple[tuple[bytes, bytes], ...], token: str | None) -> None:
    scope: dict[str, Any] = {"type": "http", "headers": list(headers)}
    upgrades = Upgrades(SecuritySection(), Cookies(AuthOptions()))
    assert upgrades.cookie_of_page(Exchange(scope, None, None)) == token  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offered", "token", "chosen"),
    [
        ((), None, None),
        (("chat",), None, None),
        (("headrace.jwt.a.b.c",), "a.b.c", "headrace.jwt.a.b.c"),
        (("chat", "kalamdb.jwt.a.b.c"), "a.b.c", "kalamdb.jwt.a.b.c"),
        (("headrace.jwt.a.b.c", "headrace"), "a.b.c", "headrace"),
        (("kalamdb", "chat"), None, "kalamdb"),
    ],
)
def test_subprotocols(offered: tuple[str, ...], token: str | None, chosen: str | None) -> None:
    found = read(HOST, subprotocols=offered)
    assert (found.token, found.subprotocol) == (token, chosen)
    assert found.source is (None if token is None else TokenSource.SUBPROTOCOL)


def test_a_header_comes_before_a_subprotocol_and_that_before_a_cookie() -> None:
    everything = read(HOST, OWN, COOKIE, (b"authorization", b"bearer  head "), subprotocols=("headrace.jwt.sub",))
    assert (everything.token, everything.source) == ("head", TokenSource.HEADER)
    without = read(HOST, OWN, COOKIE, subprotocols=("headrace.jwt.sub",))
    assert (without.token, without.source) == ("sub", TokenSource.SUBPROTOCOL)
    basic = read(HOST, (b"authorization", b"Basic eDp5"))
    assert basic.token is None


@pytest.mark.parametrize(
    ("headers", "query", "protocol", "gzip"),
    [
        ((), b"", Protocol(), True),
        ((), b"serialization=msgpack&compression=none", Protocol(), True),
        ((), b"compress=false", Protocol(compression=Compression.NONE), False),
        ((), b"compress=true", Protocol(), True),
        ((BEARER,), b"serialization=msgpack", Protocol(Serialization.MSGPACK), True),
        ((BEARER,), b"compression=none", Protocol(compression=Compression.NONE), True),
        ((BEARER,), b"serialization=MsgPack&compress=false", Protocol(Serialization.MSGPACK, Compression.NONE), False),
    ],
)
def test_query_parameters(
    headers: tuple[tuple[bytes, bytes], ...], query: bytes, protocol: Protocol, gzip: bool
) -> None:
    found = read(*headers, query=query)
    assert (found.protocol, found.gzip) == (protocol, gzip)


@pytest.mark.parametrize("query", [b"serialization=xml", b"compression=br", b"&".join([b"a=1"] * 20)])
def test_query_parameters_that_cannot_be(query: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        read(BEARER, query=query)
    assert caught.value.status == 400
