"""Every setting of the server: one struct a section, each key with its default and one line of meaning.

The sections stand in `server/config_access.py` and `server/config_data.py`, and nowhere else is a setting defined.
`config.toml` and `docs/configuration.md` are rendered from them (`python -m server.config_reference`), and a test holds
the three equal. `server/config_load.py` reads files, environment variables and flags into these structs.

Sizes are bytes and times seconds unless the name says otherwise. Section and key names are those of the system whose
wire format we keep, where it has them.
"""

from __future__ import annotations

import re

import msgspec

from server.config_access import (
    AuditSection,
    AuthSection,
    CompatSection,
    CorsSection,
    LimitsSection,
    LoggingSection,
    PerformanceSection,
    RateLimitSection,
    SecuritySection,
    ServerSection,
    UserManagementSection,
    WebsocketSection,
    WireSection,
)
from server.config_data import (
    DuckdbSection,
    ExecutionSection,
    ExportsSection,
    FilesSection,
    FlushSection,
    JobsSection,
    LiveSection,
    RemoteTimeoutsSection,
    RetentionSection,
    StorageSection,
    StreamSection,
    TopicsSection,
    VectorsSection,
)

__all__ = [
    "AuditSection",
    "AuthSection",
    "CompatSection",
    "Config",
    "CorsSection",
    "DuckdbSection",
    "ExecutionSection",
    "ExportsSection",
    "FilesSection",
    "FlushSection",
    "JobsSection",
    "Key",
    "LimitsSection",
    "LiveSection",
    "LoggingSection",
    "PerformanceSection",
    "RateLimitSection",
    "RemoteTimeoutsSection",
    "RetentionSection",
    "SecuritySection",
    "ServerSection",
    "StorageSection",
    "StreamSection",
    "TopicsSection",
    "UserManagementSection",
    "VectorsSection",
    "WebsocketSection",
    "WireSection",
    "keys",
    "sections",
    "settings_of",
]


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
