"""`POST /v1/api/ingest/{namespace}/{table}`: a whole body of rows into a table, or nothing.

The body is an Arrow IPC stream, Parquet, NDJSON or CSV, by its content type. It is received into memory or, if it is
large, into a file of the data folder; the database types it by the table and inserts it in one commit.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.active import ActiveRequests
from server.body import spool_body
from server.errors import HttpError
from server.exchange import exchange_of
from server.state import AppState
from server.wire import IngestSuccess

INGEST_TYPES = {
    "application/vnd.apache.arrow.stream": "an Arrow IPC stream",
    "application/vnd.apache.parquet": "Parquet",
    "application/x-ndjson": "NDJSON",
    "text/csv": "CSV",
}
_OTHER_NAMES = {
    "application/parquet": "application/vnd.apache.parquet",
    "application/x-parquet": "application/vnd.apache.parquet",
    "application/jsonl": "application/x-ndjson",
    "application/ndjson": "application/x-ndjson",
    "application/jsonlines": "application/x-ndjson",
    "application/csv": "text/csv",
}


class IngestRoute:
    """The handler, over the state and the spool folder."""

    def __init__(self, state: AppState, active: ActiveRequests) -> None:
        self._state = state
        self._active = active
        self._folder = state.data_path / "tmp"

    async def ingest(self, request: Request) -> Response:
        """Insert the rows of the body."""
        state = self._state
        exchange = exchange_of(request.scope)
        identity = state.authenticator.authenticate(exchange.headers.get(b"authorization"), exchange)
        exchange.user = identity.user
        state.limits.check_query(identity.user)
        content_type = _content_type(exchange.headers)
        config = state.config
        body = await spool_body(
            request.receive,
            config.performance.request_timeout,
            self._folder,
            config.limits.ingest_memory_bytes,
        )
        self._active.enter(exchange, request.receive)
        try:
            with body:
                names = request.path_params
                inserted = await state.database.ingest(
                    names["namespace"], names["table"], body.path, content_type, identity
                )
        finally:
            self._active.leave(exchange)
        answer = msgspec.json.encode(IngestSuccess(inserted=inserted, took=exchange.took_ms))
        return Response(answer, media_type="application/json")


def _content_type(headers: dict[bytes, bytes]) -> str:
    """Return the type of the body, by its usual name; raises HttpError 415 for others."""
    given = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    name = _OTHER_NAMES.get(given, given)
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if name not in INGEST_TYPES:
        known = ", ".join(f"{kind} ({meaning})" for kind, meaning in INGEST_TYPES.items())
        message = f"Content-Type '{given}' cannot be ingested; send one of {known}"
        raise HttpError(415, "INVALID_INPUT", message, sql_shape=True)
    if encoding != b"identity":
        message = "A compressed body (Content-Encoding) cannot be ingested; Parquet and Arrow compress by themselves"
        raise HttpError(415, "INVALID_INPUT", message, sql_shape=True)
    return name
