"""Every operation of the HTTP API: what `/openapi.json` and `/docs` show.

A test compares this list with the routes that the application has.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from server.auth.messages import (
    ErrorResponse,
    LoginRequest,
    LoginResponse,
    MeResponse,
    MessageResponse,
    SetupRequest,
    SetupResponse,
    StatusResponse,
)
from server.negotiation import ResultFormat
from server.openapi import Answer, Operation, Parameter, build_document
from server.routes.ingest import INGEST_TYPES
from server.topic_wire import (
    AckAnswer,
    AckRequest,
    ConsumeAnswer,
    ConsumeBody,
    ProduceAnswer,
    ProduceRequest,
    TopicFailure,
)
from server.version import version
from server.wire import (
    ClusterHealth,
    Failure,
    FileFailure,
    Health,
    HealthDenied,
    IngestSuccess,
    SqlFailure,
    SqlRequest,
    SqlSuccess,
)

_ABOUT = """\
SQL over HTTP. Sign in at /v1/api/auth/login, send the access token as `Authorization: Bearer …`.
Every answer carries `X-Request-ID`; the one that a request brings is kept. Limits answer 429 with `Retry-After`.\
"""


class SqlForm(msgspec.Struct):
    """The parts of a multipart SQL request."""

    sql: Annotated[str, Meta(description="One or more statements")]
    params: Annotated[str, Meta(description="A JSON array as text")] = ""
    namespace_id: Annotated[str, Meta(description="Namespace of unqualified table names")] = ""
    file: Annotated[str, Meta(description='A file for each FILE("name") in the SQL, as part `file:name`')] = (
        msgspec.field(default="", name="file:name")
    )


_SQL_FAILURES = (
    Answer(400, "The request, the SQL or a value is wrong; the code says what", SqlFailure),
    Answer(401, "No bearer token, or none that is valid", SqlFailure),
    Answer(403, "The role may not do this", SqlFailure),
    Answer(404, "No such table", SqlFailure),
    Answer(408, "The statement or the body took longer than the limit", SqlFailure),
    Answer(409, "Another request changed the same rows", SqlFailure),
    Answer(413, "The body is too large", Failure),
    Answer(429, "Too many requests; see Retry-After", SqlFailure),
    Answer(500, "Unexpected; the body has the request id", SqlFailure),
    Answer(503, "Overloaded or shutting down; see Retry-After", SqlFailure),
    Answer(507, "The disk or the storage limit is full", SqlFailure),
)


def _auth_failures(*statuses: int) -> tuple[Answer, ...]:
    meanings = {
        400: "The body is wrong, the password too weak or the name not allowed",
        401: "Wrong or missing credentials, or the account is locked",
        403: "Not from this address, or the role is too low",
        409: "The server is set up already, or the user exists",
        413: "The body is too large",
        415: "The body is not JSON",
        428: "The server needs its set-up first",
        429: "Too many attempts; see Retry-After",
        500: "Unexpected; the body has the request id",
        503: "Overloaded or shutting down; see Retry-After",
        507: "The disk or the storage limit is full",
    }
    return tuple(Answer(status, meanings[status], ErrorResponse) for status in statuses)


_SQL = (
    Operation(
        method="POST", path="/v1/api/sql", name="executeSql", tag="SQL", summary="Run SQL statements", bearer=True,
        description="With Accept: application/vnd.apache.arrow.stream or application/x-ndjson the rows of the last "
        "statement are streamed, without a limit on their number.",
        bodies=(SqlRequest,), multipart=SqlForm,
        answers=(
            Answer(200, "One result a statement", (SqlSuccess, ResultFormat.NDJSON.value, ResultFormat.ARROW.value)),
            *(answer for answer in _SQL_FAILURES if answer.status != 413),
            Answer(413, "The body or a file is too large", (Failure, SqlFailure)),
            Answer(415, "A file of a type that is not allowed", SqlFailure),
        ),
    ),
    Operation(
        method="GET", path="/v1/files/{namespace}/{table_name}/{subfolder}/{file_id}", name="download", tag="SQL",
        bearer=True, summary="Download a file that a live row refers to",
        description="Ranges and conditional requests as in RFC 9110; the ETag is the SHA-256.",
        parameters=(
            Parameter("namespace", "Namespace of the table"), Parameter("table_name", "Name of the table"),
            Parameter("subfolder", "`sub` of the FileRef"),
            Parameter("file_id", "`id` of the FileRef, or the stored name"),
            Parameter("user_id", "Whose rows, of a USER table; the caller's by default", "query", required=False),
            Parameter("Range", "One range of bytes", "header", required=False),
        ),
        answers=(
            Answer(200, "The file", "*/*"), Answer(206, "A part of it", "*/*"), Answer(304, "It has not changed"),
            Answer(400, "No path of a file, or a table that holds none", FileFailure),
            Answer(401, "No bearer token, or none that is valid", SqlFailure),
            Answer(403, "The role may not read it", FileFailure),
            Answer(404, "No such table or file", FileFailure),
            Answer(412, "A condition does not hold", FileFailure),
            Answer(416, "The range has no bytes of the file", FileFailure),
            Answer(429, "Too many requests; see Retry-After", SqlFailure),
            Answer(500, "Unexpected; the body has the request id", Failure),
            Answer(503, "Overloaded or shutting down; see Retry-After", FileFailure),
        ),
    ),
    Operation(
        method="GET", path="/v1/exports/{user_id}/{export_id}", name="downloadExport", tag="SQL", bearer=True,
        summary="Download an export that EXPORT USER DATA has made",
        parameters=(Parameter("user_id", "Whose data it is"), Parameter("export_id", "Id of the job that made it")),
        answers=(
            Answer(200, "The export", "application/zip"), Answer(206, "A part of it", "application/zip"),
            Answer(400, "No id of an export, or no range", (FileFailure, "text/plain")),
            Answer(401, "No bearer token, or none that is valid", SqlFailure),
            Answer(403, "It is another user's", FileFailure),
            Answer(404, "No such export, or not any more", FileFailure),
            Answer(416, "The range has no bytes of the file", "text/plain"),
            Answer(429, "Too many requests; see Retry-After", SqlFailure),
            Answer(500, "Unexpected; the body has the request id", Failure),
            Answer(503, "Overloaded or shutting down; see Retry-After", FileFailure),
        ),
    ),
    Operation(
        method="POST", path="/v1/api/ingest/{namespace}/{table}", name="ingest", tag="SQL", bearer=True,
        summary="Insert all rows of a body, or none",
        description="The content type says what the body is; columns are matched by name and typed by the table.",
        bodies=tuple(INGEST_TYPES),
        parameters=(Parameter("namespace", "Namespace of the table"), Parameter("table", "Name of the table")),
        answers=(
            Answer(200, "How many rows were inserted", IngestSuccess), *_SQL_FAILURES,
            Answer(415, "A content type that cannot be ingested", SqlFailure),
        ),
    ),
)  # fmt: skip

_LIVE = (
    Operation(
        method="GET", path="/v1/api/live", name="live", tag="Live queries", bearer=True,
        summary="Follow one live query as server-sent events",
        description="Events `ack`, `rows`, `change` and `error`; each `id` is the cursor to come back with. "
        "The sign-in cookie of our own pages does instead of the bearer token. "
        "The full protocol, with many live queries on one connection, is the WebSocket at `/v1/ws`.",
        parameters=(
            Parameter("sql", "The live query", "query"),
            Parameter("params", "Values of $1, $2, … as a JSON array", "query", required=False),
            Parameter("namespace", "Namespace of unqualified table names", "query", required=False),
            Parameter("snapshot", "all (default) or none: whether the rows of now come first", "query", required=False),
            Parameter("last_rows", "Only so many of them, the newest", "query", required=False),
            Parameter("batch_size", "Rows of an event of the snapshot", "query", required=False),
            Parameter("from", "Only what happened after this cursor", "query", required=False),
            Parameter("from_seq_id", "The same as from", "query", required=False),
            Parameter("Last-Event-ID", "The same as from, and before it", "header", required=False),
        ),
        answers=(
            Answer(200, "A stream without an end", "text/event-stream"),
            *(answer for answer in _SQL_FAILURES if answer.status not in {409, 413}),
        ),
    ),
)  # fmt: skip

_AUTH = (
    Operation(
        method="POST", path="/v1/api/auth/login", name="login", tag="Sign-in", summary="Sign in with a password",
        bodies=(LoginRequest,),
        answers=(
            Answer(200, "A pair of tokens, also set as cookies", LoginResponse),
            *_auth_failures(400, 401, 403, 413, 415, 428, 429, 500, 503, 507),
        ),
    ),
    Operation(
        method="POST", path="/v1/api/auth/refresh", name="refresh", tag="Sign-in", bearer=True,
        summary="Exchange a refresh token (cookie or bearer) for a new pair",
        answers=(
            Answer(200, "A new pair; the old refresh token is spent", LoginResponse),
            *_auth_failures(401, 403, 429, 500, 503, 507),
        ),
    ),
    Operation(
        method="POST", path="/v1/api/auth/logout", name="logout", tag="Sign-in",
        summary="End the session and clear the cookies",
        answers=(Answer(200, "Signed out", MessageResponse), *_auth_failures(429, 500, 503, 507)),
    ),
    Operation(
        method="GET", path="/v1/api/auth/me", name="me", tag="Sign-in", bearer=True, summary="Tell who the caller is",
        answers=(Answer(200, "The account", MeResponse), *_auth_failures(401, 403, 429, 500, 503)),
    ),
    Operation(
        method="POST", path="/v1/api/auth/setup", name="setup", tag="Sign-in",
        summary="Give root a password and make the first dba; once, from this machine", bodies=(SetupRequest,),
        answers=(
            Answer(200, "The account; sign in next", SetupResponse),
            *_auth_failures(400, 403, 409, 413, 415, 429, 500, 503, 507),
        ),
    ),
    Operation(
        method="GET", path="/v1/api/auth/status", name="setupStatus", tag="Sign-in",
        summary="Tell whether the server needs its set-up; from this machine",
        answers=(Answer(200, "Needed or not", StatusResponse), *_auth_failures(403, 429, 500, 503)),
    ),
)  # fmt: skip

_HEALTH_ANSWERS = (
    Answer(200, "The server answers", Health),
    Answer(403, "Asked from another machine", HealthDenied),
)

_SERVER = (
    Operation(
        method="GET", path="/health", name="health", tag="Server", summary="Tell that the server answers",
        answers=_HEALTH_ANSWERS,
    ),
    Operation(
        method="GET", path="/v1/api/healthcheck", name="healthcheck", tag="Server", summary="The same as /health",
        answers=_HEALTH_ANSWERS,
    ),
    Operation(
        method="GET", path="/v1/api/cluster/health", name="clusterHealth", tag="Server",
        summary="Tell the state of this server as the only node",
        answers=(Answer(200, "A single node", ClusterHealth), Answer(403, "Asked from another machine", "text/plain")),
    ),
    Operation(
        method="GET", path="/metrics", name="metrics", tag="Server",
        summary="Figures of the server in Prometheus' text format",
        answers=(
            Answer(200, "One line a metric", "text/plain"),
            Answer(401, "Asked from another machine without a token", SqlFailure),
            Answer(403, "Asked from another machine without the role dba or system", SqlFailure),
        ),
    ),
    Operation(
        method="GET", path="/openapi.json", name="openapi", tag="Server", summary="This description",
        answers=(Answer(200, "OpenAPI 3.1", "application/json"),),
    ),
    Operation(
        method="GET", path="/docs", name="docs", tag="Server", summary="This description, for people",
        answers=(Answer(200, "A page that needs no network", "text/html"),),
    ),
)  # fmt: skip

_TOPIC_FAILURES = (
    Answer(400, "A field is wrong or missing, or there is no such partition", TopicFailure),
    Answer(401, "No valid bearer token", SqlFailure),
    Answer(403, "The role is too low, or the account may not sign in from here", (TopicFailure, SqlFailure)),
    Answer(404, "No such topic", TopicFailure),
    Answer(408, "The request came too slowly", SqlFailure),
    Answer(410, "The offset is not retained (any more); the body has the first and the next one", TopicFailure),
    Answer(413, "The body or a message is too large", (TopicFailure, ErrorResponse)),
    Answer(429, "Too many requests; see Retry-After", ErrorResponse),
    Answer(500, "Unexpected; the body has the request id", TopicFailure),
    Answer(503, "Overloaded or shutting down; see Retry-After", (TopicFailure, SqlFailure)),
    Answer(507, "The disk or the storage limit is full", TopicFailure),
)

_TOPICS = (
    Operation(
        method="POST", path="/v1/api/topics/consume", name="consume", tag="Topics", bearer=True,
        summary="Take messages of a topic, or wait for the first one",
        description="For the roles service, dba and system. With a group the messages are claimed: no other consumer "
        "of the group gets them until the visibility timeout is over.",
        bodies=(ConsumeBody,), answers=(Answer(200, "Messages, or none", ConsumeAnswer), *_TOPIC_FAILURES),
    ),
    Operation(
        method="POST", path="/v1/api/topics/ack", name="acknowledge", tag="Topics", bearer=True,
        summary="Acknowledge messages of a partition up to an offset",
        bodies=(AckRequest,), answers=(Answer(200, "Acknowledged, durably", AckAnswer), *_TOPIC_FAILURES),
    ),
    Operation(
        method="POST", path="/v1/api/topics/produce", name="produce", tag="Topics", bearer=True,
        summary="Append messages to a topic, all or none",
        bodies=(ProduceRequest,), answers=(Answer(200, "Stored, durably", ProduceAnswer), *_TOPIC_FAILURES),
    ),
)  # fmt: skip

OPERATIONS = (*_SQL, *_LIVE, *_TOPICS, *_AUTH, *_SERVER)


def document() -> dict[str, Any]:
    """Return the OpenAPI document of this server."""
    return build_document("Headrace", version(), _ABOUT, OPERATIONS)
