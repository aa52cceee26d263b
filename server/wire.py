"""Request and response bodies of the server's own routes, as `/openapi.json` shows them.

Results are not built from these structs (rendering writes JSON straight from columns); a test holds the two equal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


class SqlRequest(msgspec.Struct):
    """Statements to run; unknown fields are ignored."""

    sql: Annotated[str, Meta(description="One or more statements separated by ';'")]
    params: Annotated[list[Any] | None, Meta(description="Values of $1, $2, …")] = None
    namespace_id: Annotated[
        str | None, Meta(description="Namespace of unqualified table names, for this request only")
    ] = None


class ColumnSchema(msgspec.Struct, omit_defaults=True):
    """A column of a result."""

    name: str
    data_type: Annotated[Any, Meta(description="A type's name, or an object such as {'Embedding': 3}")]
    index: int
    flags: Annotated[
        list[Literal["pk", "nn", "uq"]], Meta(description="Primary key, not null, unique; left out when empty")
    ] = []


class SqlResult(msgspec.Struct, omit_defaults=True):
    """What one statement answered; `schema` and `rows` only for statements with rows."""

    row_count: Annotated[int, Meta(description="Rows returned, or rows that the statement changed")]
    as_user: Annotated[str, Meta(description="Whose rights were in effect")]
    schema: list[ColumnSchema] = []
    rows: list[list[Any]] = []
    message: Annotated[str | None, Meta(description="For statements without rows")] = None


class SqlSuccess(msgspec.Struct):
    """One result a statement, in order."""

    status: Literal["success"]
    results: list[SqlResult]
    took: Annotated[float, Meta(description="Milliseconds")]


class SqlFailureDetail(msgspec.Struct):
    """Why a request failed."""

    code: str
    message: str
    details: Annotated[Any, Meta(description="Where it went wrong and what took effect before, if there is more")] = (
        None
    )


class SqlFailure(msgspec.Struct, kw_only=True):
    """The answer to an SQL or ingest request that failed, or that may not be made."""

    status: Literal["error"] = "error"
    results: list[SqlResult] = []
    took: Annotated[float, Meta(description="Milliseconds")]
    error: SqlFailureDetail


class IngestSuccess(msgspec.Struct, kw_only=True):
    """All rows of the body were inserted."""

    status: Literal["success"] = "success"
    inserted: int
    took: Annotated[float, Meta(description="Milliseconds")]


class Failure(msgspec.Struct):
    """An answer other than success of all other routes; some have more fields."""

    error: str
    message: str


class FileFailure(msgspec.Struct):
    """A download that failed: a sentence and a stable code."""

    error: str
    code: str


class Health(msgspec.Struct, kw_only=True):
    """The server answers."""

    status: Literal["healthy", "unhealthy"] = "healthy"
    version: str
    api_version: str = "v1"
    build_date: Annotated[str, Meta(description="When the running files were last changed, RFC 3339")]


class HealthDenied(msgspec.Struct):
    """Health is for this machine only."""

    error: str = "Access denied. Health endpoint is localhost-only."


class ClusterNode(msgspec.Struct):
    """This server, as the only node."""

    node_id: int
    role: str
    status: str
    api_addr: str
    is_self: bool
    is_leader: bool
    hostname: str
    memory_usage_mb: int
    uptime_seconds: int
    uptime_human: str
    replication_lag: int | None = None
    catchup_progress_pct: int | None = None
    cpu_usage_percent: float | None = None


class ClusterHealth(msgspec.Struct, kw_only=True):
    """A single node that leads itself."""

    status: Literal["healthy", "unhealthy"]
    version: str
    build_date: str
    is_cluster_mode: bool = False
    cluster_id: str = "headrace"
    node_id: int = 1
    is_leader: bool = True
    total_groups: int = 1
    groups_leading: int = 1
    current_term: int = 1
    last_applied: Annotated[int, Meta(description="The newest commit's sequence number")]
    millis_since_quorum_ack: int = 0
    nodes: list[ClusterNode]
