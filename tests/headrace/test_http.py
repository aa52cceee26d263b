"""Requests against made-up servers: what is tried again, what is cut, what is no answer of ours."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pyarrow as pa
import pytest

import headrace
from headrace import AsyncClient
from headrace._ingest import ingest_body

Handler = Callable[[httpx.Request], httpx.Response]

SUCCESS = {"status": "success", "results": [{"row_count": 0, "message": "done", "as_user": "ann"}], "took": 1.0}


def run(handler: Handler, test: Callable[[AsyncClient], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        options.setdefault("token", "token")
        async with AsyncClient("http://db", transport=httpx.MockTransport(handler), **options) as client:
            await test(client)

    asyncio.run(main())


def failure(status: int, code: str, **more: Any) -> httpx.Response:
    body = {"status": "error", "results": [], "took": 1.0, "error": {"code": code, "message": "because", **more}}
    return httpx.Response(status, json=body, headers={"X-Request-ID": "r-1"})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failure(401, "TOKEN_EXPIRED"), headrace.AuthenticationFailed),
        (failure(428, "SETUP_REQUIRED"), headrace.AuthenticationFailed),
        (failure(403, "PERMISSION_DENIED"), headrace.PermissionDenied),
        (failure(404, "TABLE_NOT_FOUND", line=1, column=2), headrace.TableNotFound),
        (failure(400, "UNSUPPORTED"), headrace.UnsupportedSql),
        (failure(408, "QUERY_TIMEOUT"), headrace.QueryTimedOut),
        (failure(409, "TRANSACTION_CONFLICT"), headrace.TransactionConflict),
        (failure(413, "BODY_TOO_LARGE"), headrace.RequestRefused),
        (failure(429, "RATE_LIMIT_EXCEEDED"), headrace.RateLimited),
        (failure(500, "INTERNAL_ERROR"), headrace.ServerFault),
        (failure(503, "SERVER_OVERLOADED"), headrace.Unavailable),
        (failure(507, "STORAGE_FULL"), headrace.ServerFault),
        (httpx.Response(404, json={"error": "NOT_FOUND", "message": "no such route"}), headrace.RequestRefused),
        (httpx.Response(502, text="<h1>Bad Gateway</h1>"), headrace.ServerFault),
        (httpx.Response(200, text="<h1>It works!</h1>"), headrace.InvalidAnswer),
    ],
)
def test_every_kind_of_answer(answer: httpx.Response, kind: type[headrace.HeadraceError]) -> None:
    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.HeadraceError) as caught:
            await client.query("SELECT 1")
        assert type(caught.value) is kind
        assert caught.value.status == answer.status_code
        if answer.status_code >= 500 and caught.value.code:
            assert "(request r-1)" in str(caught.value)

    run(lambda request: answer, test)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(httpx.ConnectError("refused"), headrace.ConnectionFailed), (httpx.ReadTimeout("slow"), headrace.RequestTimedOut)],
)
def test_no_answer(error: httpx.TransportError, kind: type[headrace.HeadraceError]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    async def test(client: AsyncClient) -> None:
        with pytest.raises(kind, match=r"POST /v1/api/sql"):
            await client.query("SELECT 1")

    run(handler, test)


@pytest.mark.parametrize(("patience", "attempts"), [(0.0, 1), (0.25, 3), (5.0, 4)])
def test_a_rate_limit_is_waited_out_for_as_long_as_allowed(patience: float, attempts: int) -> None:
    requests: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request.content)
        if len(requests) < 4:
            return httpx.Response(429, json={"error": "RATE_LIMIT_EXCEEDED"}, headers={"Retry-After": "0.1"})
        return httpx.Response(200, json=SUCCESS)

    async def test(client: AsyncClient) -> None:
        if attempts < 4:
            with pytest.raises(headrace.RateLimited) as caught:
                await client.query("SELECT 1")
            assert caught.value.retry_after == 0.1
        else:
            assert (await client.query("SELECT 1")).message == "done"
        assert len(requests) == attempts
        assert len(set(requests)) == 1

    run(handler, test, rate_limit_patience=patience)


def test_retry_after_may_be_a_date() -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.Unavailable) as caught:
            await client.query("SELECT 1")
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 60

    run(lambda request: httpx.Response(503, headers={"Retry-After": moment}), test)


class Tokens:
    """A server that gives tokens and counts what it was asked."""

    def __init__(self, life: float) -> None:
        self.life = life
        self.asked: list[str] = []
        self.valid: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path.rpartition("/")[2])
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.asked[-1] == "login" or (self.asked[-1] == "refresh" and bearer in self.valid):
            number = len(self.asked)
            self.valid = {f"access {number}", f"refresh {number}"}
            # The server's clock is an hour ahead; only how long the token lives may count.
            now = datetime.now(UTC) + timedelta(hours=1)
            end = (now + timedelta(seconds=self.life)).isoformat()
            body = {
                "user": {"id": "ann", "role": "dba"},
                "access_token": f"access {number}",
                "expires_at": end,
                "refresh_token": f"refresh {number}",
                "refresh_expires_at": end,
            }
            return httpx.Response(200, json=body, headers={"Date": now.strftime("%a, %d %b %Y %H:%M:%S GMT")})
        if bearer not in self.valid:
            return failure(401, "INVALID_CREDENTIALS")
        return httpx.Response(200, json=SUCCESS)


def test_a_token_is_renewed_before_its_end_and_not_sooner() -> None:
    tokens = Tokens(life=1000)

    async def test(client: AsyncClient) -> None:
        clock = [time.monotonic()]
        client._session._clock = lambda: clock[0]
        await client.query("SELECT 1")
        clock[0] += 930
        await client.query("SELECT 1")
        assert tokens.asked == ["login", "sql", "sql"]
        clock[0] += 20
        await asyncio.gather(*(client.query("SELECT 1") for _ in range(5)))
        assert tokens.asked[3:] == ["refresh", *["sql"] * 5]

    run(tokens, test, token=None, user="ann", password="secret")


def test_a_renewal_that_got_no_answer_is_tried_with_the_same_token() -> None:
    tokens = Tokens(life=1000)
    broken = [False]

    def handler(request: httpx.Request) -> httpx.Response:
        if broken[0] and request.url.path.endswith("refresh"):
            raise httpx.ReadError("cut")
        return tokens(request)

    async def test(client: AsyncClient) -> None:
        client._session._renew_at, broken[0] = 0.0, True
        with pytest.raises(headrace.ConnectionFailed):
            await client.query("SELECT 1")
        broken[0] = False
        await client.query("SELECT 1")
        assert tokens.asked == ["login", "refresh", "sql"]

    run(handler, test, token=None, user="ann", password="secret")


def test_a_refusal_is_not_tried_for_ever() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return failure(401, "INVALID_CREDENTIALS")

    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.AuthenticationFailed):
            await client.query("SELECT 1")
        assert asked == ["/v1/api/sql", "/v1/api/auth/refresh"]

    run(handler, test, refresh_token="refresh")


async def cut(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def arrow_stream() -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("id", pa.int64()), ("name", pa.string())])) as writer:
        for start in range(0, 40, 10):
            rows = [{"id": n, "name": "x" * n} for n in range(start, start + 10)]
            writer.write_batch(
                pa.RecordBatch.from_pylist(rows, schema=pa.schema([("id", pa.int64()), ("name", "string")]))
            )
    return bytes(sink.getvalue())


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_an_arrow_stream_in_pieces_of_any_size(size: int) -> None:
    async def test(client: AsyncClient) -> None:
        rows = [row async for batch in client.stream_arrow("SELECT 1") for row in batch.to_pylist()]
        assert rows == [{"id": n, "name": "x" * n} for n in range(40)]

    run(lambda request: httpx.Response(200, content=cut(arrow_stream(), size)), test)


def test_streams_that_end_before_their_end() -> None:
    whole = arrow_stream()

    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.ConnectionFailed):
            _ = [batch async for batch in client.stream_arrow("SELECT 1")]
        with pytest.raises(headrace.InvalidAnswer):
            await client.query_arrow("SELECT 1")

    for end in (len(whole) - 8, len(whole) // 2, 5, 0):
        run(lambda request, end=end: httpx.Response(200, content=cut(whole[:end], 50)), test)  # type: ignore[misc]

    async def lines(client: AsyncClient) -> None:
        seen: list[dict[str, Any]] = []

        async def read() -> None:
            async for row in client.stream("SELECT 1"):
                seen.append(row)  # noqa: PERF401 (what came before the cut counts)

        with pytest.raises(headrace.ConnectionFailed):
            await read()
        assert seen == [{"id": 1}]

    run(lambda request: httpx.Response(200, content=cut(b'{"id":1}\n{"id"', 3)), lines)


def test_what_is_no_arrow_stream() -> None:
    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.InvalidAnswer):
            _ = [batch async for batch in client.stream_arrow("SELECT 1")]

    for body in (b"<h1>It works!</h1>", b"\xff\xff\xff\xff\x08\x00\x00\x00" + bytes(8) + b"\xff" * 40):
        run(lambda request, body=body: httpx.Response(200, content=body), test)  # type: ignore[misc]


def test_a_generator_of_rows_is_sent_once_a_list_again() -> None:
    kind, make = ingest_body([{"id": 1}])
    assert callable(make)

    async def read(parts: Any) -> list[Any]:
        return [json.loads(line) for part in [part async for part in parts] for line in part.splitlines()]

    assert kind == "application/x-ndjson"
    assert asyncio.run(read(make())) == asyncio.run(read(make())) == [{"id": 1}]
    _, once = ingest_body({"id": n} for n in range(2))
    assert callable(once)
    assert asyncio.run(read(once())) == [{"id": 0}, {"id": 1}]
    with pytest.raises(RuntimeError, match="cannot be sent a second time"):
        once()
