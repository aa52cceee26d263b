"""`POST /v1/api/sql`: statements in, results out as JSON, NDJSON or an Arrow stream.

A raw ASGI endpoint, because it is the hottest path of the server. The order of checks: bearer, queries a second of the
user, content type and body, sizes of the text and the parameters; then everything else is the database's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from server.active import ActiveRequests
from server.body import read_body
from server.exchange import Exchange
from server.logging import log_slow_sql
from server.middleware.errors import JSON
from server.negotiation import ResultFormat, choose_format
from server.routes.streaming import send_stream
from server.state import AppState
from server.wire import SqlRequest
from sql.errors import FilesNeeded, InvalidInput, InvalidParameter, InvalidSql, MissingFile
from sql.identity import Identity
from sql.rendering import BigintMode, encode_success
from sql.results import StatementResult

_ROWS_ON_THE_LOOP = 5_000
"""Larger results are written as JSON in a thread, so that other requests go on meanwhile."""

_HEADERS = [JSON]

MULTIPART = b"multipart/form-data"


class SqlEndpoint:
    """Runs the statements of a request."""

    def __init__(self, state: AppState, active: ActiveRequests) -> None:
        config = state.config
        self._database = state.database
        self._authenticate = state.authenticator.authenticate
        self._check_query = state.limits.check_query
        self._active = active
        self._staging = state.data_path / "tmp"
        self._config = config
        self._timeout = config.performance.request_timeout
        self._max_sql = config.limits.max_sql_bytes
        self._max_parameters = config.execution.max_parameters
        self._max_parameter = config.execution.max_parameter_size_bytes
        self._slow_ms = config.logging.slow_query_threshold_ms or float("inf")
        self._bigint = BigintMode(config.wire.bigint)
        self._decode = msgspec.json.Decoder(SqlRequest).decode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange: Exchange = scope["exchange"]
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        headers = exchange.headers
        identity = self._authenticate(headers.get(b"authorization"), exchange)
        exchange.user = identity.user
        self._check_query(identity.user)
        content_type = headers.get(b"content-type", b"")
        if not content_type.startswith(b"application/json"):
            kind = content_type.partition(b";")[0].strip().lower()
            if kind == MULTIPART:
                await self._serve_form(content_type, identity, exchange, receive)
                return
            if kind != b"application/json":
                await read_body(receive, self._timeout)
                raise InvalidInput("Invalid JSON payload: Content-Type must be application/json or multipart/form-data")
        body = await read_body(receive, self._timeout)
        await self._serve(self._parse(body), len(body), identity, exchange, receive)

    async def _serve_form(self, content_type: bytes, identity: Identity, exchange: Exchange, receive: Receive) -> None:
        from server.routes.multipart import FormLimits, receive_form  # the parser: only where forms come

        limits = FormLimits(self._config, self._staging)
        async with receive_form(receive, content_type, limits) as form:
            if not form.files:
                try:
                    await self._serve(form.request, form.texts_size, identity, exchange, receive)
                except FilesNeeded as error:
                    raise MissingFile(
                        "There is no part for this FILE placeholder",
                        line=error.line,
                        column=error.column,
                        excerpt=error.excerpt,
                    ) from None
                return
            request = form.request
            self._check_sizes(request, form.texts_size)
            self._active.enter(exchange, receive)
            try:
                results = await self._database.execute_with_files(
                    request.sql, request.params, request.namespace_id or None, identity, form.files
                )
            finally:
                self._leave(request, exchange)
            await exchange.respond(200, _HEADERS, encode_success(results, exchange.took_ms, self._bigint))

    async def _serve(
        self, request: SqlRequest, size: int, identity: Identity, exchange: Exchange, receive: Receive
    ) -> None:
        """Run a request without files; `size` is that of its texts."""
        headers = exchange.headers
        self._check_sizes(request, size)
        self._active.enter(exchange, receive)
        try:
            wanted = choose_format(headers.get(b"accept"))
            if wanted is ResultFormat.JSON:
                await self._answer(request, identity, exchange)
            else:
                stream = await self._database.stream(
                    request.sql, request.params, request.namespace_id or None, identity
                )
                await send_stream(stream, wanted, self._bigint, exchange)
        finally:
            self._leave(request, exchange)

    def _leave(self, request: SqlRequest, exchange: Exchange) -> None:
        self._active.leave(exchange)
        if exchange.took_ms > self._slow_ms:
            log_slow_sql(request.sql, exchange)

    async def _answer(self, request: SqlRequest, identity: Identity, exchange: Exchange) -> None:
        results = await self._database.execute(request.sql, request.params, request.namespace_id or None, identity)
        took = exchange.took_ms
        if _rows(results) > _ROWS_ON_THE_LOOP:
            body = await asyncio.to_thread(encode_success, results, took, self._bigint)
        else:
            body = encode_success(results, took, self._bigint)
        await exchange.respond(200, _HEADERS, body)

    def _parse(self, body: bytes) -> SqlRequest:
        try:
            return self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidInput(f"Invalid JSON payload: {error}") from None
        except RecursionError:
            raise InvalidInput("Invalid JSON payload: it is nested too deeply") from None

    def _check_sizes(self, request: SqlRequest, body_size: int) -> None:
        """Check the limits; a body that is smaller than them as a whole needs no look inside."""
        if body_size > self._max_sql:
            size = len(request.sql.encode())
            if size > self._max_sql:
                raise InvalidSql(f"SQL query too long: {size} bytes (maximum {self._max_sql} bytes)")
        params = request.params
        if not params:
            return
        if len(params) > self._max_parameters:
            raise InvalidParameter(
                f"Parameter count exceeded: maximum {self._max_parameters} parameters allowed, got {len(params)}"
            )
        if body_size > self._max_parameter:
            for number, value in enumerate(params, 1):
                size = len(value.encode() if isinstance(value, str) else msgspec.json.encode(value))
                if size > self._max_parameter:
                    raise InvalidParameter(
                        f"Parameter ${number} is too large: {size} bytes (maximum {self._max_parameter} bytes)"
                    )


def _rows(results: Iterable[StatementResult]) -> int:
    return sum(result.table.num_rows for result in results if result.table is not None)
