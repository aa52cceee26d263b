"""Settings of what clients meet: addresses, limits, sign-in, security, logs and the wire (see `server.config`)."""

from __future__ import annotations

import ipaddress
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
