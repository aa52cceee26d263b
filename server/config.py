"""Every setting of the server: one struct a section, each key with its default and one line of meaning.

This is the only place where a setting is defined. `config.toml` and `docs/configuration.md` are rendered from it
(`python -m server.config_reference`), and a test holds the three equal. `server/config_load.py` reads files,
environment variables and flags into these structs.

Sizes are bytes and times seconds unless the name says otherwise. Section and key names are those of the system whose
wire format we keep, where it has them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MIB = 1024 * 1024
GIB = 1024 * MIB


class ServerSection(msgspec.Struct, frozen=True):
    """Where the server listens and how it stops."""

    host: Annotated[str, Meta(min_length=1, description="Address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one")] = 2900
    shutdown_timeout_seconds: Annotated[
        int, Meta(ge=0, description="How long running requests may take to finish after SIGINT or SIGTERM")
    ] = 10


class RemoteTimeoutsSection(msgspec.Struct, frozen=True):
    """How long object stores may take to answer."""

    connect_timeout_secs: Annotated[float, Meta(gt=0, le=3600, description="Time to connect to one")] = 10.0
    request_timeout_secs: Annotated[float, Meta(gt=0, le=3600, description="Time for one answer")] = 60.0


class StorageSection(msgspec.Struct, frozen=True):
    """The data folder and the storage engine."""

    data_path: Annotated[str, Meta(min_length=1, description="Folder of the database; created on first start")] = (
        "./data"
    )
    max_bytes: Annotated[
        int, Meta(ge=0, description="Largest size of the database file; 0 lets it grow while the disk has room")
    ] = 0
    queue_works: Annotated[
        int, Meta(ge=1, description="Writes that may wait for the writer before new ones are refused with 503")
    ] = 16_384
    snapshot_lease_seconds: Annotated[
        float, Meta(gt=0, description="How long one reader may keep old pages before it is ended")
    ] = 300.0
    cold_cache_bytes: Annotated[
        int, Meta(ge=0, description="How much decoded rows of cold tables may take in the folder cache; 0 keeps none")
    ] = 4 * GIB
    cold_grace_seconds: Annotated[
        float, Meta(ge=0, description="How long Parquet files that a compaction replaced are kept for other engines")
    ] = 3_600.0
    remote_timeouts: RemoteTimeoutsSection = msgspec.field(default_factory=RemoteTimeoutsSection)


class RetentionSection(msgspec.Struct, frozen=True):
    """How much of the commit log is kept for readers that lag or resume, and how often that is looked after."""

    commit_log_seconds: Annotated[int, Meta(ge=0, description="Commits younger than this are kept")] = 86_400
    commit_log_bytes: Annotated[
        int, Meta(ge=0, description="The oldest commits go when the log is larger than this; 0 for no bound")
    ] = 4 * GIB
    interval_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="Time between rounds that trim the log and topics and give space back")
    ] = 10.0
    enable_dba_stats: Annotated[bool, Meta(description="Whether figures of the server are kept in dba.stats")] = True
    dba_stats_interval_seconds: Annotated[float, Meta(ge=1, description="Time between two samples in dba.stats")] = 30.0
    dba_stats_retention_days: Annotated[int, Meta(ge=1, description="How long samples stay in dba.stats")] = 7


class StreamSection(msgspec.Struct, frozen=True):
    """Rows of STREAM tables whose time is over."""

    eviction_interval_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="Least time between two rounds that end expired rows in the log; readers never see them anyway",
        ),
    ] = 1.0


class LimitsSection(msgspec.Struct, frozen=True):
    """Sizes of requests and results."""

    max_body_bytes: Annotated[int, Meta(ge=1024, description="Largest body of a request, except ingest")] = 32 * MIB
    max_sql_bytes: Annotated[int, Meta(ge=1, description="Longest SQL text of a request")] = MIB
    max_result_rows: Annotated[
        int, Meta(ge=1, description="Most rows of a JSON result; the streaming formats have no such limit")
    ] = 100_000
    max_ingest_bytes: Annotated[int, Meta(ge=1024, description="Largest body of an ingest request")] = 4 * GIB
    ingest_memory_bytes: Annotated[
        int, Meta(ge=0, description="Ingest bodies larger than this wait in a file of the data folder, not in memory")
    ] = MIB


class FilesSection(msgspec.Struct, frozen=True):
    """Files in columns: what may be uploaded, and where it is stored."""

    storage: Annotated[
        str,
        Meta(description="Where files lie: a URI such as s3://bucket/path; empty: the folder files of the data folder"),
    ] = ""
    max_size_bytes: Annotated[int, Meta(ge=1, description="Largest file")] = 25 * MIB
    max_files_per_request: Annotated[int, Meta(ge=0, description="Most files of a request; 0 refuses all")] = 20
    max_request_bytes: Annotated[int, Meta(ge=1, description="Most bytes of all files of a request together")] = (
        100 * MIB
    )
    max_files_per_folder: Annotated[int, Meta(ge=1, description="Files of a table that share a folder")] = 5_000
    allowed_mime_types: Annotated[
        tuple[str, ...], Meta(description="Types that may be uploaded, such as application/pdf or image/*; empty: any")
    ] = ()
    min_upload_bytes_per_second: Annotated[
        int, Meta(ge=0, description="Slowest upload, on average from performance.request_timeout on; 0: no limit")
    ] = 1024

    def __post_init__(self) -> None:
        """Types are compared in small letters, whole or up to the slash."""
        for pattern in self.allowed_mime_types:
            kind, slash, subtype = pattern.partition("/")
            if not (kind and slash and subtype) or pattern != pattern.lower() or "*" in kind or "*" in subtype[:-1]:
                raise ValueError(f"key 'allowed_mime_types': '{pattern}' is no type such as image/png or image/*")


class LoggingSection(msgspec.Struct, frozen=True):
    """What the server writes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="debug logs every request, info those that failed, warning and error less"),
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="text for people, json (one object a line) for machines")
    ] = "text"
    slow_query_threshold_ms: Annotated[
        float, Meta(ge=0, description="SQL requests that take longer are logged as warnings, literals masked; 0: none")
    ] = 1200.0
    memory_lines: Annotated[
        int, Meta(ge=0, le=100_000, description="Latest lines that system.server_logs shows, kept in memory; 0: none")
    ] = 1000


class PerformanceSection(msgspec.Struct, frozen=True):
    """Connections, timeouts of the protocol, threads."""

    request_timeout: Annotated[
        float, Meta(gt=0, description="Longest time to receive the body of an SQL request, and between parts of others")
    ] = 30.0
    client_request_timeout: Annotated[
        float, Meta(gt=0, description="Longest time to receive the head of a request")
    ] = 5.0
    keepalive_timeout: Annotated[
        int, Meta(ge=1, description="How long an idle connection stays open after an answer")
    ] = 75
    max_connections: Annotated[int, Meta(ge=1, description="Connections before new ones are answered 503")] = 25_000
    backlog: Annotated[int, Meta(ge=1, description="Connections that the kernel holds until they are accepted")] = 4096
    max_header_size: Annotated[int, Meta(ge=1024, description="Largest head of a request: its line and headers")] = (
        16_384
    )
    worker_max_blocking_threads: Annotated[
        int, Meta(ge=2, le=512, description="Threads for queries, password checks and files")
    ] = 32


class RateLimitSection(msgspec.Struct, frozen=True):
    """Requests a second, connections and bans. Except the limit a user, all are skipped for loopback addresses."""

    max_queries_per_sec: Annotated[int, Meta(ge=0, description="SQL and ingest requests of one user; 0: no limit")] = (
        100
    )
    max_auth_requests_per_ip_per_sec: Annotated[
        int, Meta(ge=0, description="Sign-in requests from one address; 0: no limit")
    ] = 20
    max_requests_per_ip_per_sec: Annotated[int, Meta(ge=0, description="Requests from one address; 0: no limit")] = 200
    max_connections_per_ip: Annotated[int, Meta(ge=0, description="Open connections from one address; 0: no limit")] = (
        100
    )
    ban_duration_seconds: Annotated[
        int, Meta(ge=0, description="Ban of an address after 10 violations, up to six times as long after 60; 0: none")
    ] = 300
    enable_connection_protection: Annotated[
        bool, Meta(description="Whether the limits an address (requests, connections, bans) apply at all")
    ] = True
    max_messages_per_sec: Annotated[
        int, Meta(ge=0, description="Messages a WebSocket connection may send a second; 0: no limit")
    ] = 50
    max_subscriptions_per_user: Annotated[
        int, Meta(ge=0, description="Live queries of one user, over all connections; 0: no limit")
    ] = 10
    cache_max_entries: Annotated[int, Meta(ge=16, description="Addresses and users that are remembered at a time")] = (
        10_000
    )
    cache_ttl_seconds: Annotated[int, Meta(ge=60, description="How long one that makes no request is remembered")] = 600


class AuthSection(msgspec.Struct, frozen=True):
    """Sign-in, tokens and passwords."""

    root_password: Annotated[
        str, Meta(description="Password of root, set at start if it has none yet; empty: set-up asks for it")
    ] = ""
    jwt_secret: Annotated[
        str, Meta(description="Key that signs tokens, 32 characters or more; empty: a random one in the data folder")
    ] = ""
    jwt_expiry_hours: Annotated[float, Meta(gt=0, description="Life of an access token")] = 24.0
    refresh_expiry_hours: Annotated[float, Meta(gt=0, description="Life of a refresh token")] = 168.0
    cookie_secure: Annotated[bool, Meta(description="Whether cookies of https requests are marked Secure")] = True
    allow_remote_setup: Annotated[
        bool, Meta(description="Whether set-up and its status answer to other machines than this one")
    ] = False
    min_password_length: Annotated[int, Meta(ge=1, le=1024, description="Shortest new password, in characters")] = 8
    max_password_length: Annotated[int, Meta(ge=1, le=4096, description="Longest password, in characters")] = 1024
    enforce_password_complexity: Annotated[
        bool, Meta(description="Whether a new password needs upper and lower case, a digit and a special character")
    ] = False
    argon2_memory_kib: Annotated[int, Meta(ge=1024, description="Memory of one password hash, in KiB")] = 19_456
    argon2_iterations: Annotated[int, Meta(ge=1, description="Passes of one password hash")] = 3
    argon2_parallelism: Annotated[int, Meta(ge=1, description="Lanes of one password hash")] = 1
    max_failed_logins: Annotated[
        int, Meta(ge=0, description="Wrong passwords in a row that lock an account; 0: never")
    ] = 5
    lockout_minutes: Annotated[int, Meta(ge=1, description="How long a locked account stays locked")] = 15

    def __post_init__(self) -> None:
        """A short key could be guessed."""
        if self.jwt_secret and len(self.jwt_secret) < 32:
            raise ValueError("key 'jwt_secret' must have at least 32 characters, or be empty")
        if self.max_password_length < self.min_password_length:
            raise ValueError("key 'max_password_length' is smaller than 'min_password_length'")


class AuditSection(msgspec.Struct, frozen=True):
    """The log of who did what (`system.audit_log`)."""

    retention_days: Annotated[int, Meta(ge=0, le=36_500, description="How long entries are kept; 0: for ever")] = 90


class UserManagementSection(msgspec.Struct, frozen=True):
    """What becomes of dropped accounts."""

    deletion_grace_period_days: Annotated[
        float, Meta(ge=-1, le=36_500, description="Days until the rows of a dropped account are deleted; -1: never")
    ] = 30.0


class CorsSection(msgspec.Struct, frozen=True):
    """Which web pages may call the server."""

    allowed_origins: Annotated[
        tuple[str, ...], Meta(description="Origins such as https://app.example.com; empty: any")
    ] = ()
    allowed_methods: Annotated[tuple[str, ...], Meta(description="Methods that pages may use")] = (
        "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS",
    )  # fmt: skip
    allowed_headers: Annotated[tuple[str, ...], Meta(description="Request headers that pages may send")] = (
        "Authorization", "Content-Type", "Accept", "Origin", "X-Requested-With", "X-Request-ID",
    )  # fmt: skip
    expose_headers: Annotated[tuple[str, ...], Meta(description="Response headers that pages may read")] = (
        "X-Request-ID",
    )
    allow_credentials: Annotated[
        bool, Meta(description="Whether pages may send cookies; needs allowed_origins to be named")
    ] = False
    max_age: Annotated[int, Meta(ge=0, description="How long a browser may remember the answer")] = 3600
    allow_private_network: Annotated[
        bool, Meta(description="Whether pages of public sites may call a server in a private network")
    ] = False

    def __post_init__(self) -> None:
        """Credentials for any origin would let every page act for a signed-in user."""
        if self.allow_credentials and (not self.allowed_origins or "*" in self.allowed_origins):
            raise ValueError("key 'allow_credentials' needs allowed_origins to name the origins")


class SecuritySection(msgspec.Struct, frozen=True):
    """Proxies, cross-origin requests and messages of WebSockets."""

    trusted_proxy_ranges: Annotated[
        tuple[str, ...],
        Meta(description="Networks (CIDR) beside loopback whose X-Forwarded-For and X-Real-IP are believed"),
    ] = ()
    max_ws_message_size: Annotated[
        int,
        Meta(
            ge=1024,
            description="Largest message of a WebSocket; a larger one is refused, one of over 16 times that ends it",
        ),
    ] = MIB
    strict_ws_origin_check: Annotated[
        bool, Meta(description="Whether upgrades to WebSocket that send no Origin header are refused")
    ] = False
    cors: CorsSection = msgspec.field(default_factory=CorsSection)

    def __post_init__(self) -> None:
        """Refuse ranges that are no networks."""
        for text in self.trusted_proxy_ranges:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise ValueError(f"key 'trusted_proxy_ranges': {error}") from error


class WebsocketSection(msgspec.Struct, frozen=True):
    """WebSocket connections and their live queries."""

    send_buffer_bytes: Annotated[
        int, Meta(ge=4096, description="What may wait for a slow client before its live queries fall back to the log")
    ] = MIB
    client_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long a client may stay silent, pings unanswered, before it is dropped")
    ] = 10.0
    auth_timeout_secs: Annotated[float, Meta(gt=0, description="Longest time until a client has signed in")] = 3.0
    heartbeat_interval_secs: Annotated[float, Meta(gt=0, description="Time between pings to a silent client")] = 5.0
    max_subscriptions_per_connection: Annotated[int, Meta(ge=1, description="Live queries of one connection")] = 100
    slow_consumer_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long a client may take nothing of what waits for it before it is dropped")
    ] = 60.0


class LiveSection(msgspec.Struct, frozen=True):
    """Live queries: their snapshots, and the threads that serve them."""

    batch_size: Annotated[int, Meta(ge=1, description="Rows of a snapshot's batch when the client names no size")] = (
        1_000
    )
    max_batch_size: Annotated[int, Meta(ge=1, description="Largest batch that a client may ask for")] = 10_000
    snapshot_memory_bytes: Annotated[
        int, Meta(ge=0, description="How much of a snapshot waits in memory for its client; the rest waits in a file")
    ] = 4 * MIB
    snapshot_idle_seconds: Annotated[
        float, Meta(gt=0, description="How long a client may take to ask for the next batch of its snapshot")
    ] = 120.0
    workers: Annotated[
        int, Meta(ge=1, le=64, description="Threads that read the log for clients that lag, and evaluate large commits")
    ] = 4

    def __post_init__(self) -> None:
        """The usual batch is one that may be asked for."""
        if self.batch_size > self.max_batch_size:
            raise ValueError("key 'batch_size' is larger than 'max_batch_size'")


class TopicsSection(msgspec.Struct, frozen=True):
    """Topics and their consumers."""

    visibility_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long messages are a consumer's until they are delivered again")
    ] = 60.0
    max_visibility_timeout_secs: Annotated[
        float, Meta(gt=0, description="The longest such time that a consumer may ask for")
    ] = 43_200.0
    max_deliveries: Annotated[
        int,
        Meta(ge=0, description="Deliveries without an acknowledgement that make a message a dead letter; 0: never"),
    ] = 0
    max_poll_seconds: Annotated[
        float, Meta(ge=0, description="How long a consumer may wait for messages in one request")
    ] = 60.0
    max_batch_messages: Annotated[int, Meta(ge=1, description="Most messages of one answer, or of one produce")] = (
        10_000
    )
    max_batch_bytes: Annotated[int, Meta(ge=1024, description="Bytes of the payloads of one answer, about")] = 8 * MIB
    max_message_bytes: Annotated[int, Meta(ge=1, description="Largest payload that may be produced")] = MIB
    max_key_bytes: Annotated[int, Meta(ge=1, description="Longest key that may be produced")] = 4096
    max_waiting: Annotated[int, Meta(ge=1, description="Consumers that may wait at a time")] = 50_000
    default_retention_seconds: Annotated[
        int, Meta(ge=0, description="How long a new topic keeps messages, if it does not say; 0: no bound")
    ] = 604_800
    default_retention_bytes: Annotated[
        int, Meta(ge=0, description="How many bytes of messages a new topic keeps, if it does not say; 0: no bound")
    ] = GIB


class JobsSection(msgspec.Struct, frozen=True):
    """Work in the background: flushing, compaction, backups, exports, clean-up."""

    max_concurrent: Annotated[int, Meta(ge=1, le=100, description="Jobs that run at once; others wait")] = 10
    max_waiting: Annotated[int, Meta(ge=1, description="Jobs that may wait before new ones are refused with 503")] = (
        10_000
    )
    max_retries: Annotated[int, Meta(ge=0, le=100, description="How often a job that failed is run again")] = 3
    retry_backoff_ms: Annotated[
        int, Meta(ge=1, le=3_600_000, description="Milliseconds before that, doubled each time")
    ] = 100
    retention_seconds: Annotated[int, Meta(ge=0, description="How long finished jobs stay in system.jobs")] = 604_800
    max_finished: Annotated[int, Meta(ge=0, description="How many finished jobs stay in system.jobs at most")] = 10_000
    cleanup_interval_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="Time between looks for jobs that are to be removed")
    ] = 600.0
    stop_seconds: Annotated[
        float, Meta(ge=0, description="How long running jobs may take to stop; they go on after the next start")
    ] = 10.0


class ExportsSection(msgspec.Struct, frozen=True):
    """What users export of their own data."""

    retention_days: Annotated[float, Meta(gt=0, le=3650, description="How long an export can be downloaded")] = 7.0
    max_bytes: Annotated[int, Meta(ge=1, description="Largest export")] = 16 * GIB


class FlushSection(msgspec.Struct, frozen=True):
    """When rows of tables with a flush policy move to cold files."""

    check_interval_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="Time between looks for tables whose policy asks for a flush")
    ] = 60.0


class ExecutionSection(msgspec.Struct, frozen=True):
    """Bounds of a statement."""

    handler_timeout_seconds: Annotated[float, Meta(gt=0, description="Longest time of all statements of a request")] = (
        30.0
    )
    stream_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Longest time of a result in a streaming format")
    ] = 300.0
    max_parameters: Annotated[int, Meta(ge=0, description="Most parameters ($1, $2, …) of a request")] = 32_767
    max_parameter_size_bytes: Annotated[int, Meta(ge=1, description="Largest single parameter")] = 16 * MIB
    sql_plan_cache_max_entries: Annotated[int, Meta(ge=1, description="Statements whose plan is remembered")] = 2000
    max_waiting: Annotated[
        int, Meta(ge=1, description="Statements that may wait for a thread before new ones are refused with 503")
    ] = 256
    transaction_timeout_seconds: Annotated[float, Meta(gt=0, description="Longest time of BEGIN … COMMIT")] = 300.0
    max_transaction_buffer_bytes: Annotated[
        int, Meta(ge=MIB, description="Largest amount of changes that one transaction holds before it commits")
    ] = 104_857_600


class DuckdbSection(msgspec.Struct, frozen=True):
    """The engine behind queries that are more than a look-up or a simple filter."""

    memory_limit_bytes: Annotated[
        int, Meta(ge=16 * MIB, description="Memory of all queries together; what is more goes to files")
    ] = GIB
    threads: Annotated[int, Meta(ge=0, description="Threads of a query; 0: as many as the machine has cores")] = 0
    max_temp_bytes: Annotated[
        int, Meta(ge=0, description="Largest size of those files; queries that need more fail")
    ] = 4 * GIB
    connections: Annotated[int, Meta(ge=1, le=64, description="Queries that run at a time; others wait")] = 2
    process_memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Private memory that the operating system grants the whole process, so that a query's huge "
            "intermediate values fail instead of the machine; 0: no limit",
        ),
    ] = 4 * GIB
    wait_seconds: Annotated[float, Meta(gt=0, description="How long a query waits before it is refused with 503")] = (
        10.0
    )


class WireSection(msgspec.Struct, frozen=True):
    """How values are written in JSON."""

    bigint: Annotated[
        Literal["auto", "string", "number"],
        Meta(description="64-bit integers: auto writes those beyond 2^53-1 as strings, the others always do one thing"),
    ] = "auto"


class CompatSection(msgspec.Struct, frozen=True):
    """Clients of the system whose wire format we keep."""

    kalamdb_cookies: Annotated[
        bool, Meta(description="Whether its cookie names are set and accepted beside our own")
    ] = True


class VectorsSection(msgspec.Struct, frozen=True):
    """Vector indexes on EMBEDDING columns."""

    memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory of all indexes: the least recently used are unloaded, larger ones searched exactly",
        ),
    ] = GIB
    min_rows: Annotated[
        int, Meta(ge=1, description="Rows of a table, or of one user in a USER table, below which search is exact")
    ] = 5_000


class Config(msgspec.Struct, frozen=True):
    """The whole configuration."""

    server: ServerSection = msgspec.field(default_factory=ServerSection)
    storage: StorageSection = msgspec.field(default_factory=StorageSection)
    retention: RetentionSection = msgspec.field(default_factory=RetentionSection)
    stream: StreamSection = msgspec.field(default_factory=StreamSection)
    limits: LimitsSection = msgspec.field(default_factory=LimitsSection)
    files: FilesSection = msgspec.field(default_factory=FilesSection)
    logging: LoggingSection = msgspec.field(default_factory=LoggingSection)
    performance: PerformanceSection = msgspec.field(default_factory=PerformanceSection)
    rate_limit: RateLimitSection = msgspec.field(default_factory=RateLimitSection)
    auth: AuthSection = msgspec.field(default_factory=AuthSection)
    audit: AuditSection = msgspec.field(default_factory=AuditSection)
    user_management: UserManagementSection = msgspec.field(default_factory=UserManagementSection)
    security: SecuritySection = msgspec.field(default_factory=SecuritySection)
    websocket: WebsocketSection = msgspec.field(default_factory=WebsocketSection)
    live: LiveSection = msgspec.field(default_factory=LiveSection)
    topics: TopicsSection = msgspec.field(default_factory=TopicsSection)
    jobs: JobsSection = msgspec.field(default_factory=JobsSection)
    exports: ExportsSection = msgspec.field(default_factory=ExportsSection)
    flush: FlushSection = msgspec.field(default_factory=FlushSection)
    execution: ExecutionSection = msgspec.field(default_factory=ExecutionSection)
    duckdb: DuckdbSection = msgspec.field(default_factory=DuckdbSection)
    vectors: VectorsSection = msgspec.field(default_factory=VectorsSection)
    wire: WireSection = msgspec.field(default_factory=WireSection)
    compat: CompatSection = msgspec.field(default_factory=CompatSection)


def sections() -> dict[str, type[msgspec.Struct]]:
    """All sections in order, by the name that the file gives them (`security.cors` is one of its own)."""
    found: dict[str, type[msgspec.Struct]] = {}
    for top in msgspec.structs.fields(Config):
        found[top.name] = top.type
        for inner in msgspec.structs.fields(top.type):
            if isinstance(inner.type, type) and issubclass(inner.type, msgspec.Struct):
                found[f"{top.name}.{inner.name}"] = inner.type
    return found


class Key(msgspec.Struct, frozen=True):
    """One key of a section: its full type (with bounds), default and meaning."""

    section: str
    name: str
    type: object
    default: object
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return f"HEADRACE_{self.section}_{self.name}".upper().replace(".", "_")


def keys(section: str) -> list[Key]:
    """The keys of a section in order, without its sub-sections."""
    found = []
    for field in msgspec.structs.fields(sections()[section]):
        metadata = getattr(field.type, "__metadata__", ())
        if metadata:
            found.append(Key(section, field.name, field.type, field.default, metadata[0].description or ""))
    return found


SECRETS = frozenset({"root_password", "jwt_secret"})
"""Keys whose values nobody is shown."""
MASKED = "***"
_URI_SECRET = re.compile(
    r"(?<=://)[^/?#@\s]*(?=@)|(?<=[?&])(?P<name>\w*(?:key|secret|token|password)\w*)=[^&#\s]*", re.IGNORECASE
)
"""Credentials that a URI may carry: before the host, and as parameters."""


def settings_of(config: Config) -> list[tuple[str, str, str, str]]:
    """List every setting in effect for `system.settings`: name, value, meaning, section. Secrets are masked."""
    rows = []
    for section in sections():
        struct: object = config
        for part in section.split("."):
            struct = getattr(struct, part)
        rows += [
            (f"{section}.{key.name}", _shown(key.name, getattr(struct, key.name)), key.meaning, section)
            for key in keys(section)
        ]
    return rows


def _shown(name: str, value: object) -> str:
    """A value as text, without what is secret in it; that a secret is not set shows."""
    if name in SECRETS:
        return MASKED if value else ""
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return _URI_SECRET.sub(lambda found: f"{found['name']}={MASKED}" if found["name"] else MASKED, text)
