"""Catalog definitions (namespaces, tables, topics, users) and the immutable catalog that a commit carries.

Definitions are msgspec structs, stored as MessagePack in the `catalog` sub-database. Fields are only ever
added, with defaults, so that every version reads the older ones.

The in-memory `Catalog` holds namespaces, tables, views and topics (small, read by every statement). Users and other
objects that may be many are read from the snapshot one by one (`ReadView.get_object`).
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import msgspec
import pyarrow as pa

from storage.topic_definitions import Operation, TopicDef, TopicSource
from storage.types import ColumnType, arrow_type
from storage.vector_definitions import VectorIndexDef
from storage.view_definitions import ViewDef


class TableKind(enum.StrEnum):
    """How rows of a table are partitioned; the value is the wire spelling in lower case.

    USER and STREAM tables have a partition for each user; a SHARED table has one. Rows of a STREAM table are only
    appended, and end by themselves (`storage.expiry`).
    """

    USER = "user"
    SHARED = "shared"
    STREAM = "stream"


class AccessLevel(enum.StrEnum):
    """Who may read and write a SHARED table."""

    PUBLIC = "public"
    PRIVATE = "private"
    RESTRICTED = "restricted"
    DBA = "dba"


class ColumnDef(msgspec.Struct, frozen=True):
    """One column. `column_id` never changes and is never reused in its table; it names the stored field.

    `default` is the canonical SQL text of the DEFAULT expression, or None. `initial` is what rows written
    before the column existed read as: a one-row Arrow IPC stream with one field, or None for NULL. A column that is
    `always_generated` (GENERATED ALWAYS AS IDENTITY) takes no value but its default.
    """

    column_id: int
    name: str
    type: ColumnType
    nullable: bool = True
    default: str | None = None
    initial: bytes | None = None
    comment: str | None = None
    always_generated: bool = False


class UniqueDef(msgspec.Struct, frozen=True):
    """A UNIQUE constraint; `index_id` (from 1) is its place in the key index. NULLs never collide."""

    index_id: int
    name: str
    column_ids: tuple[int, ...]


class CheckDef(msgspec.Struct, frozen=True):
    """A CHECK constraint as canonical SQL text over the table's columns."""

    name: str
    expression: str


class IndexState(enum.StrEnum):
    """How far a secondary index is: writes maintain it from `building` on, reads use it when it is `ready`."""

    BUILDING = "building"
    READY = "ready"


class IndexDef(msgspec.Struct, frozen=True):
    """A secondary index (CREATE INDEX); `index_id` is its place in the key index, never used again in its table.

    `job` names the job that builds it, if one does. `created_at` is in microseconds since the epoch.
    """

    index_id: int
    name: str
    column_ids: tuple[int, ...]
    unique: bool = False
    state: IndexState = IndexState.BUILDING
    created_at: int = 0
    job: str = ""


class SchemaVersion(msgspec.Struct, frozen=True):
    """The columns that batches written under `version` hold; `created_at` is 0 where it is not known."""

    version: int
    columns: tuple[ColumnDef, ...]
    created_at: int = 0


class TableDef(msgspec.Struct, frozen=True, dict=True):
    """A table. `primary_key` lists column ids in key order; empty means a hidden row id.

    `history` holds all earlier schema versions; the present one is of `versioned_at` (0: as old as the table).

    Only STREAM tables: a row lives for `ttl_seconds` from its commit on; rows with a `_seq` up to `expired_through`
    had expired when the TTL was last changed, and stay so. Their `primary_key` is empty: `declared_key` is what was
    written as PRIMARY KEY; it names the row for clients and is not enforced.
    """

    table_id: int
    namespace: str
    name: str
    kind: TableKind
    columns: tuple[ColumnDef, ...]
    primary_key: tuple[int, ...] = ()
    uniques: tuple[UniqueDef, ...] = ()
    checks: tuple[CheckDef, ...] = ()
    schema_version: int = 1
    history: tuple[SchemaVersion, ...] = ()
    next_column_id: int = 1
    next_index_id: int = 1
    access_level: AccessLevel = AccessLevel.PRIVATE
    owner: str = ""
    options: dict[str, str] = msgspec.field(default_factory=dict)
    comment: str | None = None
    created_at: int = 0
    updated_at: int = 0
    ttl_seconds: int = 0
    expired_through: int = 0
    declared_key: tuple[int, ...] = ()
    vector_indexes: tuple[VectorIndexDef, ...] = ()
    versioned_at: int = 0
    indexes: tuple[IndexDef, ...] = ()

    @property
    def per_user(self) -> bool:
        """Whether each user has a partition of their own, and reaches no other one."""
        return self.kind is not TableKind.SHARED

    @property
    def expires(self) -> bool:
        """Whether rows end by themselves: a STREAM table."""
        return self.kind is TableKind.STREAM

    @property
    def ttl_us(self) -> int:
        """How long a row of a STREAM table lives, in microseconds."""
        return self.ttl_seconds * 1_000_000

    @property
    def shown_key(self) -> tuple[int, ...]:
        """The columns that definitions show as PRIMARY KEY: enforced, or (STREAM tables) only declared."""
        return self.primary_key or self.declared_key

    @cached_property
    def full_name(self) -> str:
        """`namespace.name`."""
        return f"{self.namespace}.{self.name}"

    @cached_property
    def by_name(self) -> dict[str, ColumnDef]:
        """Columns by (lower-case) name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def by_id(self) -> dict[int, ColumnDef]:
        """Columns by id."""
        return {column.column_id: column for column in self.columns}

    @cached_property
    def key_columns(self) -> tuple[ColumnDef, ...]:
        """Columns of the primary key, in key order; empty for a table with a hidden row id."""
        return tuple(self.by_id[column_id] for column_id in self.primary_key)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """User columns in declared order, by name, with their storage types."""
        return pa.schema([pa.field(c.name, arrow_type(c.type)) for c in self.columns])

    def vector_index(self, column: str) -> VectorIndexDef | None:
        """The vector index on a column, if it has one."""
        found = self.by_name.get(column)
        return next((i for i in self.vector_indexes if found is not None and i.column_id == found.column_id), None)

    @cached_property
    def maintained(self) -> tuple[tuple[int, tuple[int, ...], bool], ...]:
        """What writes have to know of the secondary indexes: a write planned over another value is planned again."""
        return tuple((index.index_id, index.column_ids, index.unique) for index in self.indexes)

    @cached_property
    def refuses_duplicates(self) -> bool:
        """Whether anything but the primary key does: a UNIQUE constraint or a unique index."""
        return bool(self.uniques) or any(index.unique for index in self.indexes)

    def index(self, name: str) -> IndexDef | None:
        """The secondary index of that name, if any."""
        return next((index for index in self.indexes if index.name == name), None)

    def unique_columns(self, unique: UniqueDef | IndexDef) -> tuple[ColumnDef, ...]:
        """Columns of a UNIQUE constraint or an index, in key order."""
        return tuple(self.by_id[column_id] for column_id in unique.column_ids)


class NamespaceDef(msgspec.Struct, frozen=True):
    """A namespace (schema) with free-form options. Times are microseconds since the epoch."""

    name: str
    created_at: int = 0
    options: dict[str, object] = msgspec.field(default_factory=dict)


USER_KIND = "user"
"""The object kind of accounts."""


class UserDef(msgspec.Struct, frozen=True):
    """An account; the name is the user id. `password_hash` is an argon2id string or None (cannot log in).

    Times are microseconds since the epoch.
    """

    user_id: str
    role: str
    password_hash: str | None = None
    email: str | None = None
    auth_type: str = "password"
    auth_data: str | None = None
    failed_login_attempts: int = 0
    locked_until: int | None = None
    last_login_at: int | None = None
    created_at: int = 0
    updated_at: int = 0
    deleted_at: int | None = None


class Catalog:
    """Namespaces, tables, views and topics as of one commit; immutable, shared by every reader of that commit."""

    __slots__ = (
        "_by_id", "_counts", "_namespaces", "_sources", "_tables", "_topics", "_views", "published_deletes", "version",
    )  # fmt: skip

    def __init__(
        self,
        version: int,
        namespaces: Iterable[NamespaceDef],
        tables: Iterable[TableDef],
        topics: Iterable[TopicDef] = (),
        views: Iterable[ViewDef] = (),
    ) -> None:
        self.version = version
        self._namespaces = {n.name: n for n in namespaces}
        self._tables = {(t.namespace, t.name): t for t in tables}
        self._by_id = {t.table_id: t for t in self._tables.values()}
        self._topics = {t.topic_id: t for t in topics}
        self._counts: dict[str, int] | None = None
        self._views = {(v.namespace, v.name): v for v in views}
        self._sources: dict[int, list[tuple[TopicDef, TopicSource]]] = {}
        for topic in self._topics.values():
            for source in topic.sources:
                self._sources.setdefault(source.table_id, []).append((topic, source))
        self.published_deletes = frozenset(
            source.table_id
            for topic in self._topics.values()
            for source in topic.sources
            if source.operation is Operation.DELETE
        )
        """The ids of the tables whose deletes become messages of some topic."""

    def namespace(self, name: str) -> NamespaceDef | None:
        """The namespace of that name, if any."""
        return self._namespaces.get(name)

    def table(self, namespace: str, name: str) -> TableDef | None:
        """The table of that name, if any."""
        return self._tables.get((namespace, name))

    def table_by_id(self, table_id: int) -> TableDef | None:
        """The table with that id, if it still exists."""
        return self._by_id.get(table_id)

    def namespaces(self) -> Iterator[NamespaceDef]:
        """All namespaces by name."""
        return iter(sorted(self._namespaces.values(), key=lambda n: n.name))

    def tables(self, namespace: str | None = None) -> Iterator[TableDef]:
        """All tables, or those of one namespace, by full name."""
        chosen = (t for t in self._tables.values() if namespace is None or t.namespace == namespace)
        return iter(sorted(chosen, key=lambda t: (t.namespace, t.name)))

    def table_count(self, namespace: str) -> int:
        """How many tables a namespace has; counted once for all namespaces of a catalog."""
        counts = self._counts
        if counts is None:
            counts = self._counts = Counter(space for space, _ in self._tables)
        return counts.get(namespace, 0)

    def view(self, namespace: str, name: str) -> ViewDef | None:
        """The view of that name, if any."""
        return self._views.get((namespace, name))

    @property
    def has_views(self) -> bool:
        """Whether there is any view."""
        return bool(self._views)

    def views(self, namespace: str | None = None) -> Iterator[ViewDef]:
        """All views, or those of one namespace, by full name."""
        chosen = (v for v in self._views.values() if namespace is None or v.namespace == namespace)
        return iter(sorted(chosen, key=lambda v: (v.namespace, v.name)))

    def topic(self, namespace: str, name: str) -> TopicDef | None:
        """The topic of that name, if any."""
        return next((t for t in self._topics.values() if t.name == name and t.namespace == namespace), None)

    def topic_by_id(self, topic_id: int) -> TopicDef | None:
        """The topic with that id, if it still exists."""
        return self._topics.get(topic_id)

    def topics(self, namespace: str | None = None) -> Iterator[TopicDef]:
        """All topics, or those of one namespace, by full name."""
        chosen = (t for t in self._topics.values() if namespace is None or t.namespace == namespace)
        return iter(sorted(chosen, key=lambda t: (t.namespace, t.name)))

    def sources_of(self, table_id: int) -> Sequence[tuple[TopicDef, TopicSource]]:
        """The sources that make messages of a table's changes, with their topics."""
        return self._sources.get(table_id, ())

    def evolve(
        self,
        version: int,
        *,
        put: Iterable[NamespaceDef | TableDef | TopicDef | ViewDef] = (),
        drop_tables: Iterable[int] = (),
        drop_namespaces: Iterable[str] = (),
        drop_topics: Iterable[int] = (),
        drop_views: Iterable[tuple[str, str]] = (),
    ) -> Catalog:
        """A new catalog with definitions put (by name / by id) and dropped."""
        tables = dict(self._by_id)
        namespaces = dict(self._namespaces)
        topics = dict(self._topics)
        views = dict(self._views)
        for definition in put:
            if isinstance(definition, TableDef):
                tables[definition.table_id] = definition
            elif isinstance(definition, TopicDef):
                topics[definition.topic_id] = definition
            elif isinstance(definition, ViewDef):
                views[definition.namespace, definition.name] = definition
            else:
                namespaces[definition.name] = definition
        for table_id in drop_tables:
            tables.pop(table_id, None)
        for name in drop_namespaces:
            namespaces.pop(name, None)
        for topic_id in drop_topics:
            topics.pop(topic_id, None)
        for view in drop_views:
            views.pop(view, None)
        return Catalog(version, namespaces.values(), tables.values(), topics.values(), views.values())
