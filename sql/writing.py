"""What statements that write need of their surroundings: the caller, a transaction, and sources of values.

`Transaction` and `WriteTransaction` of the storage engine are both `RowWriter`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import pyarrow as pa

from sql.identity import Identity
from storage.catalog import NamespaceDef, TableDef
from storage.seams import SYSTEM_CLOCK
from storage.topic_definitions import TopicDef
from storage.view_definitions import ViewDef
from storage.views import ReadView


class StatementContext(Protocol):
    """Who runs the statement and which namespace unqualified names mean."""

    @property
    def identity(self) -> Identity:
        """The caller, or the target of EXECUTE AS USER."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace of the request."""
        ...


class DefinitionWriter(ReadView, Protocol):
    """A state that definitions can be changed in."""

    def put_table(self, table: TableDef) -> None:
        """Create or replace a table's definition."""
        ...

    def drop_table(self, table_id: int) -> None:
        """Remove a table; its rows go with it."""
        ...

    def put_namespace(self, namespace: NamespaceDef) -> None:
        """Create or replace a namespace."""
        ...

    def drop_namespace(self, name: str) -> None:
        """Remove an (empty) namespace."""
        ...

    def put_topic(self, topic: TopicDef) -> None:
        """Create or replace a topic's definition."""
        ...

    def drop_topic(self, topic_id: int) -> None:
        """Remove a topic; its messages and groups go with it."""
        ...

    def put_view(self, view: ViewDef) -> None:
        """Create or replace a view."""
        ...

    def drop_view(self, namespace: str, name: str) -> None:
        """Remove a view."""
        ...

    def allocate_table_id(self) -> int:
        """An id that no table had before."""
        ...

    def put_object(self, kind: str, name: str, value: msgspec.Struct) -> None:
        """Create or replace another catalog object."""
        ...


def time_of(txn: DefinitionWriter) -> int:
    """The present in microseconds: the writer's own time; a Transaction has none, and takes the machine's."""
    now = getattr(txn, "now_us", None)
    return SYSTEM_CLOCK.now_us() if now is None else int(now())


class RowWriter(DefinitionWriter, Protocol):
    """A state that rows can be changed in, too."""

    def insert(self, table: TableDef, partition: str, rows: pa.Table) -> tuple[int, int]:
        """Add rows (all columns, by name); raises DuplicateKey."""
        ...

    def replace(self, table: TableDef, partition: str, old_seqs: Sequence[int], rows: pa.Table) -> tuple[int, int]:
        """Row i takes the place of `old_seqs[i]`; raises WriteConflict or DuplicateKey."""
        ...

    def delete(self, table: TableDef, partition: str, seqs: Sequence[int]) -> None:
        """Remove rows; raises WriteConflict."""
        ...

    def expect_schema(self, table: TableDef) -> TableDef:
        """Raise SchemaChanged unless the table is still as it was planned on."""
        ...
