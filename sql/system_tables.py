"""Tables that are computed when they are read: what a provider is, and the registry of all of them.

A provider names its columns and gives the rows of one statement, from the statement's snapshot. To add a
table, write a provider and put it into the list that `default_registry` joins. A table of few rows gives them as tuples
(`rows`); one that may have a hundred thousand fills only the columns that are asked for (`fill`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa

from sql.identity import Identity
from storage.types import ColumnType, arrow_type
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.live.subscription import Subscription
    from sql.running_transactions import RunningTransaction
    from sql.system_rows import LogLine, NodeFigures, SessionRow
    from sql.topics.browsing import BrowsedTopics
    from storage.storage_definitions import StorageDef

SYSTEM = "system"
INFORMATION_SCHEMA = "information_schema"
SYSTEM_NAMESPACES = (SYSTEM, INFORMATION_SCHEMA)


@dataclass(frozen=True, slots=True)
class SystemColumn:
    """A column of a system table."""

    name: str
    type: ColumnType
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class SystemContext:
    """What providers may know beside the snapshot: the caller, the server's settings, its figures.

    `settings` gives (name, value, description, category) rows with secrets left out; `stats` gives metrics by name;
    `live` the live queries, `last_heard` when a connection was last heard of (microseconds since the epoch), `sessions`
    who is connected, `transactions` those that run, `logs` the latest lines of the log, newest first, `node` what the
    process tells of itself (None where no server runs), `topics` reads messages.
    """

    identity: Identity
    settings: Callable[[], Iterable[tuple[str, str, str, str]]] = tuple
    stats: Callable[[], Mapping[str, str]] = dict
    live: Callable[[], Sequence[Subscription]] = tuple
    last_heard: Callable[[str], int | None] = lambda connection_id: None
    sessions: Callable[[], Sequence[SessionRow]] = tuple
    transactions: Callable[[], Sequence[RunningTransaction]] = tuple
    logs: Callable[[], Sequence[LogLine]] = tuple
    node: Callable[[], NodeFigures | None] = lambda: None
    topics: BrowsedTopics | None = None
    storage_base: Callable[[StorageDef], str] = lambda storage: storage.base_directory
    """Where a storage lies, as it is shown."""
    job_progress: Callable[[str], tuple[int, str] | None] = lambda job_id: None
    """How far a running job is: percent, and what it says."""


Rows = Iterable[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Sought:
    """What a query asks for of the columns `SystemTable.seek`: `equal` values of the first ones, bounds of the next.

    The bounds are included. It only narrows what a provider computes; rows beyond it may be given all the same.
    """

    equal: tuple[object, ...] = ()
    low: object = None
    high: object = None

    def admits(self, *values: object) -> bool:
        """Whether a row whose first `seek` columns have these values may be asked for."""
        return all(wanted == value for wanted, value in zip(self.equal, values, strict=False))


EVERYTHING = Sought()
Fill = Callable[[ReadView, SystemContext, Sought, frozenset[str]], Mapping[str, pa.Array]]
"""The columns of the given names, all of the same length; more may be given."""


@dataclass(frozen=True, slots=True)
class SystemTable:
    """A computed table: `rows` gives tuples of storage values in the order of `columns`, or `fill` gives columns."""

    namespace: str
    name: str
    columns: tuple[SystemColumn, ...]
    rows: Callable[[ReadView, SystemContext], Rows] | None = None
    admin_only: bool = True
    key: tuple[str, ...] = field(default=())
    """The columns that identify a row; the default order."""
    fill: Fill | None = None
    seek: tuple[str, ...] = field(default=())
    """The columns by which `fill` finds rows without computing all."""

    @property
    def full_name(self) -> str:
        """`namespace.name`."""
        return f"{self.namespace}.{self.name}"

    @property
    def seek_columns(self) -> tuple[SystemColumn, ...]:
        """The columns of `seek`."""
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in self.seek)

    def read(
        self,
        view: ReadView,
        context: SystemContext,
        columns: Sequence[str] | None = None,
        sought: Sought = EVERYTHING,
    ) -> pa.Table:
        """The rows as an Arrow table with the storage types of the columns."""
        if self.fill is not None:
            wanted = [c.name for c in self.columns if columns is None or c.name in columns]
            filled = self.fill(view, context, sought, frozenset(wanted))
            return pa.table([filled[name] for name in wanted], names=wanted)
        assert self.rows is not None
        rows = list(self.rows(view, context))
        chosen = [(i, c) for i, c in enumerate(self.columns) if columns is None or c.name in columns]
        arrays = [pa.array([row[i] for row in rows], arrow_type(c.type)) for i, c in chosen]
        return pa.table(arrays, names=[c.name for _, c in chosen])


def by_rows(columns: tuple[SystemColumn, ...], rows: Callable[[ReadView, SystemContext, Sought], Rows]) -> Fill:
    """A `fill` of tuples in the order of `columns`, from rows that look at what is sought."""

    def fill(view: ReadView, context: SystemContext, sought: Sought, wanted: frozenset[str]) -> Mapping[str, pa.Array]:
        found = list(rows(view, context, sought))
        return {
            column.name: pa.array([row[place] for row in found], arrow_type(column.type))
            for place, column in enumerate(columns)
            if column.name in wanted
        }

    return fill


class SystemTables:
    """The registry: providers by namespace and name."""

    def __init__(self, tables: Iterable[SystemTable]) -> None:
        self._tables = {(t.namespace, t.name): t for t in tables}

    def get(self, namespace: str, name: str) -> SystemTable | None:
        """The provider of that name, if any."""
        return self._tables.get((namespace, name))

    def __iter__(self) -> Iterator[SystemTable]:
        return iter(sorted(self._tables.values(), key=lambda t: (t.namespace, t.name)))


@cache
def own_tables() -> SystemTables:
    """The tables of this package: the same object every time."""
    return default_registry()


def default_registry(extra: Iterable[SystemTable] = ()) -> SystemTables:
    """All tables of this package, and those that other rooms bring."""
    from sql.indexes.listing import INDEXES_TABLE
    from sql.information_schema import INFORMATION_SCHEMA_TABLES
    from sql.jobs.tables import JOB_TABLES
    from sql.live_statements import LIVE_TABLE
    from sql.storages.manifest import MANIFEST_TABLE
    from sql.storages.tables import STORAGES_TABLE
    from sql.system_audit import AUDIT_TABLE
    from sql.system_catalog import CATALOG_TABLES
    from sql.system_cluster import CLUSTER_TABLES
    from sql.system_server import SERVER_TABLES
    from sql.system_topics import MESSAGES_TABLE, OFFSETS_TABLE, TOPICS_TABLE

    topics = (TOPICS_TABLE, OFFSETS_TABLE, MESSAGES_TABLE)
    ours = (*CATALOG_TABLES, *SERVER_TABLES, LIVE_TABLE, *topics, *CLUSTER_TABLES, *INFORMATION_SCHEMA_TABLES)
    return SystemTables([*ours, *JOB_TABLES, AUDIT_TABLE, INDEXES_TABLE, STORAGES_TABLE, MANIFEST_TABLE, *extra])
