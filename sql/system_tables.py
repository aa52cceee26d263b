"""Tables that are computed when they are read: what a provider is, and the registry of all of them.

A provider names its columns and gives the rows of one statement, from the statement's snapshot. To add a
table, write a provider and put it into the list that `default_registry` joins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from sql.identity import Identity
from storage.types import ColumnType, arrow_type
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.live.subscription import Subscription

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
    `live` the live queries, `last_heard` when a connection was last heard of (microseconds since the epoch).
    """

    identity: Identity
    settings: Callable[[], Iterable[tuple[str, str, str, str]]] = tuple
    stats: Callable[[], Mapping[str, str]] = dict
    live: Callable[[], Sequence[Subscription]] = tuple
    last_heard: Callable[[str], int | None] = lambda connection_id: None
    job_progress: Callable[[str], tuple[int, str] | None] = lambda job_id: None
    """How far a running job is: percent, and what it says."""


Rows = Iterable[Sequence[object]]


@dataclass(frozen=True, slots=True)
class SystemTable:
    """A computed table. `rows` gives tuples of storage values in the order of `columns`."""

    namespace: str
    name: str
    columns: tuple[SystemColumn, ...]
    rows: Callable[[ReadView, SystemContext], Rows]
    admin_only: bool = True
    key: tuple[str, ...] = field(default=())
    """The columns that identify a row; the default order."""

    @property
    def full_name(self) -> str:
        """`namespace.name`."""
        return f"{self.namespace}.{self.name}"

    def read(self, view: ReadView, context: SystemContext, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows as an Arrow table with the storage types of the columns."""
        rows = list(self.rows(view, context))
        chosen = [(i, c) for i, c in enumerate(self.columns) if columns is None or c.name in columns]
        arrays = [pa.array([row[i] for row in rows], arrow_type(c.type)) for i, c in chosen]
        return pa.table(arrays, names=[c.name for _, c in chosen])


class SystemTables:
    """The registry: providers by namespace and name."""

    def __init__(self, tables: Iterable[SystemTable]) -> None:
        self._tables = {(t.namespace, t.name): t for t in tables}

    def get(self, namespace: str, name: str) -> SystemTable | None:
        """The provider of that name, if any."""
        return self._tables.get((namespace, name))

    def __iter__(self) -> Iterator[SystemTable]:
        return iter(sorted(self._tables.values(), key=lambda t: (t.namespace, t.name)))


def default_registry(extra: Iterable[SystemTable] = ()) -> SystemTables:
    """All tables of this package, and those that other rooms bring."""
    from sql.indexes.listing import INDEXES_TABLE
    from sql.information_schema import INFORMATION_SCHEMA_TABLES
    from sql.jobs.tables import JOB_TABLES
    from sql.live_statements import LIVE_TABLE
    from sql.system_catalog import CATALOG_TABLES
    from sql.system_server import SERVER_TABLES
    from sql.system_topics import OFFSETS_TABLE, TOPICS_TABLE

    ours = (*CATALOG_TABLES, *SERVER_TABLES, LIVE_TABLE, TOPICS_TABLE, OFFSETS_TABLE, *INFORMATION_SCHEMA_TABLES)
    return SystemTables([*ours, *JOB_TABLES, INDEXES_TABLE, *extra])
