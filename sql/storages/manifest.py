"""Manifests: what a table has in cold files, partition by partition. system.manifest, SHOW MANIFEST, `manifest.json`.

A manifest is made from the records of the segments, which are committed with what they tell: it is never behind. Its
form is that of the reference; values in `column_stats` are JSON, times milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING

import msgspec
import xxhash

from sql.computed_results import result_of
from sql.errors import ResultTooLarge
from sql.results import StatementResult
from sql.rights import may_read, partition_of
from sql.system_tables import EVERYTHING, SYSTEM, Rows, Sought, SystemColumn, SystemContext, SystemTable, by_rows
from storage.catalog import TableDef
from storage.cold_segments import ColumnStats, Segment, SegmentStatus
from storage.types import BOOLEAN, JSON, TEXT, TIMESTAMP
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.identity import Identity
    from sql.services import Services, StatementContext

SHARED_SCOPE = "shared"

_COLUMNS = (
    SystemColumn("cache_key", TEXT, nullable=False),
    SystemColumn("namespace_id", TEXT, nullable=False),
    SystemColumn("table_name", TEXT, nullable=False),
    SystemColumn("scope", TEXT, nullable=False),
    SystemColumn("etag", TEXT),
    SystemColumn("last_refreshed", TIMESTAMP),
    SystemColumn("last_accessed", TIMESTAMP),
    SystemColumn("in_memory", BOOLEAN, nullable=False),
    SystemColumn("sync_state", TEXT, nullable=False),
    SystemColumn("manifest_json", JSON, nullable=False),
)


class TableId(msgspec.Struct, frozen=True):
    """Whose manifest it is."""

    namespace_id: str
    table_name: str


class ColumnBounds(msgspec.Struct, frozen=True):
    """What is known of a column's values in a segment; NULL bounds: not known, or there is no value."""

    min: object
    max: object
    null_count: int


class ManifestSegment(msgspec.Struct, frozen=True):
    """One Parquet file. `path` is below the storage's base."""

    id: str
    path: str
    min_seq: int
    max_seq: int
    row_count: int
    size_bytes: int
    created_at: int
    column_stats: dict[str, ColumnBounds]
    status: str
    schema_version: int
    storage_id: str


class Manifest(msgspec.Struct, frozen=True):
    """The cold files of one partition of a table. `version` grows with every change of them."""

    table_id: TableId
    user_id: str | None
    version: int
    created_at: int
    updated_at: int
    segments: list[ManifestSegment]
    last_sequence_number: int
    files: dict[str, object] | None = None
    vector_indexes: dict[str, object] = {}


def manifest_of(table: TableDef, user: str, segments: Iterable[Segment]) -> Manifest:
    """The manifest of a partition, from the records of its segments in any order."""
    ordered = sorted(segments, key=lambda segment: segment.segment_id)
    committed = [s for s in ordered if s.status is SegmentStatus.COMMITTED]
    return Manifest(
        table_id=TableId(table.namespace, table.name),
        user_id=user if table.per_user else None,
        version=max((s.segment_id for s in ordered), default=0),
        created_at=min((s.created_at for s in ordered), default=0) // 1000,
        updated_at=max((s.updated_at or s.created_at for s in ordered), default=0) // 1000,
        segments=[_segment(segment) for segment in ordered],
        last_sequence_number=max((s.max_seq for s in committed), default=0),
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as JSON."""
    return msgspec.json.encode(manifest)


def _segment(segment: Segment) -> ManifestSegment:
    return ManifestSegment(
        id=str(segment.segment_id),
        path=segment.path,
        min_seq=segment.min_seq,
        max_seq=segment.max_seq,
        row_count=segment.rows,
        size_bytes=segment.bytes,
        created_at=segment.created_at // 1000,
        column_stats={str(column): _bounds(stats) for column, stats in segment.column_stats.items()},
        status=segment.status.value,
        schema_version=segment.schema_version,
        storage_id=segment.storage_id,
    )


def _bounds(stats: ColumnStats) -> ColumnBounds:
    low, high = (stats.low, stats.high) if stats.bounded else (None, None)
    return ColumnBounds(low, high, stats.null_count)


def show_manifest(context: StatementContext, services: Services) -> StatementResult:
    """SHOW MANIFEST: of tables that the caller may read; of USER tables admins see all partitions, others their own."""
    most = services.limits.max_result_rows
    with services.snapshot(context) as snapshot:
        rows = list(islice(_rows(snapshot, context.identity), most + 1))
    if len(rows) > most:
        raise ResultTooLarge(
            f"There are more than {most} manifests (limits.max_result_rows). Ask system.manifest with a condition and "
            "a LIMIT."
        )
    return result_of(_COLUMNS, rows)


def _rows(view: ReadView, identity: Identity, sought: Sought = EVERYTHING) -> Rows:
    for table, user, segments in _partitions(view, identity, sought):
        manifest = manifest_of(table, user, segments)
        text = encode_manifest(manifest)
        scope = user if table.per_user else SHARED_SCOPE
        moving = any(segment.status is SegmentStatus.IN_PROGRESS for segment in segments)
        yield (
            f"{table.namespace}:{table.name}:{scope}", table.namespace, table.name, scope,
            xxhash.xxh3_64_hexdigest(text), manifest.updated_at * 1000, None, False,
            "syncing" if moving else "in_sync", text.decode(),
        )  # fmt: skip


def _partitions(view: ReadView, identity: Identity, sought: Sought) -> Iterator[tuple[TableDef, str, list[Segment]]]:
    """The partitions that the caller may see and asks for; the records of others are not read."""
    for table in sorted(view.catalog.tables(), key=lambda table: table.table_id):
        if not may_read(identity.role, table) or not sought.admits(table.namespace, table.name):
            continue
        wanted = sought.equal[2] if table.per_user and len(sought.equal) > 2 else None
        own = None if identity.role.is_admin else partition_of(table, identity)
        if own is not None and wanted not in {None, own}:
            continue
        one = own if own is not None else wanted if isinstance(wanted, str) else None
        found = sorted(view.segments(table.table_id, one), key=lambda segment: segment.user)
        for user, segments in groupby(found, key=lambda segment: segment.user):
            yield table, user, list(segments)


def _system_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    return _rows(view, context.identity, sought)


MANIFEST_TABLE = SystemTable(
    SYSTEM,
    "manifest",
    _COLUMNS,
    key=("cache_key",),
    fill=by_rows(_COLUMNS, _system_rows),
    seek=("namespace_id", "table_name", "scope"),
)
