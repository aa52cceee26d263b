"""What the routes share: configuration, engine, database, authenticator, limits and clock, behind small protocols.

The real things are put together in `server/assembly.py`; tests put fakes in their place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from server.exchange import Exchange
from server.process_figures import ProcessFigures
from sql.identity import Identity
from sql.results import ResultColumn, StatementResult
from sql.topics.messages import Batch, ConsumeRequest
from sql.topics.settings import TopicSettings
from storage.blobs import BlobReader
from storage.seams import Clock, SystemClock
from storage.topic_groups import IsGone
from storage.topic_writes import Placed, Produced

__all__ = ["AppState", "Authenticator", "Clock", "Database", "Engine", "ResultStream", "SystemClock", "Topics"]

if TYPE_CHECKING:
    import pyarrow as pa

    from server.config import Config
    from server.middleware.rate_limit import RateLimits
    from sql.files.downloads import FileRequest, StoredFile
    from sql.files.references import UploadedFile


class ResultStream(Protocol):
    """The rows of a statement while they are being read: columns first, then record batches."""

    @property
    def columns(self) -> Sequence[ResultColumn]:
        """The result's columns; the batches have them in the same order, with their storage types."""

    @property
    def batches(self) -> AsyncIterator[pa.RecordBatch]:
        """The rows; closing the iterator (`aclose`) ends the query."""


class Topics(Protocol):
    """What the routes need of `sql.topics.hub.TopicHub`."""

    @property
    def settings(self) -> TopicSettings:
        """Bounds."""

    async def consume(self, request: ConsumeRequest) -> Batch:
        """Messages for a consumer; waits as long as the request says. Raises SqlError or StorageError."""

    async def produce(self, namespace: str, topic: str, messages: Sequence[Produced], user: str) -> list[Placed]:
        """Append messages durably; where each one went."""

    async def acknowledge(
        self,
        namespace: str,
        topic: str,
        group: str,
        partition: int | None,
        upto: int | None,
        holder: str,
        *,
        back: bool,
        is_gone: IsGone,
    ) -> int:
        """Acknowledge durably; the offset that counts as acknowledged, -1 for none."""


class Database(Protocol):
    """What the routes need of `sql.database.Database`."""

    @property
    def topics(self) -> Topics:
        """Consumers and producers of topics."""

    def scope(self, namespace: str | None) -> str:
        """The namespace that a request means."""

    async def execute(
        self, sql: str, params: list[object] | None, namespace: str | None, identity: Identity
    ) -> list[StatementResult]:
        """Run all statements of a request; raises SqlError."""

    async def stream(
        self, sql: str, params: list[object] | None, namespace: str | None, identity: Identity
    ) -> ResultStream:
        """Run all statements of a request and stream the rows of the last; raises SqlError."""

    async def execute_with_files(
        self,
        sql: str,
        params: list[object] | None,
        namespace: str | None,
        identity: Identity,
        uploads: Mapping[str, UploadedFile],
    ) -> list[StatementResult]:
        """Run a request that brings files, by the name of their part; raises SqlError."""

    async def open_file(self, request: FileRequest, identity: Identity) -> tuple[StoredFile, BlobReader]:
        """The file that a download names, if the caller may read it, and its bytes; raises SqlError."""

    async def find_export(self, user: str, export_id: str, identity: Identity) -> Path:
        """The file of an export, if the caller may have it; raises SqlError."""

    async def ingest(self, namespace: str, table: str, file: Path, content_type: str, identity: Identity) -> int:
        """Insert all rows of a file into a table, or none; returns how many. Raises SqlError."""


class Authenticator(Protocol):
    """Who a request speaks for. Called on the event loop for every request: it must not block."""

    def authenticate(self, authorization: bytes | None, exchange: Exchange) -> Identity:
        """The identity behind an `Authorization` header (None: there is none); raises `server.errors.AuthError`."""

    def needs_setup(self) -> bool:
        """Whether nobody has set a password for `root` yet."""


class Engine(Protocol):
    """What the server itself needs of `storage.engine.StorageEngine`."""

    @property
    def last_seq(self) -> int:
        """The newest commit's sequence number."""

    def close(self) -> None:
        """Commit what is queued, then give the data folder back."""


@dataclass(slots=True)
class AppState:
    """Everything that a route may use; one for each application."""

    config: Config
    engine: Engine
    database: Database
    authenticator: Authenticator
    limits: RateLimits
    clock: Clock
    data_path: Path
    process: ProcessFigures = field(default_factory=ProcessFigures)
