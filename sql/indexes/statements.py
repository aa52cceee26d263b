"""CREATE INDEX, DROP INDEX and SHOW INDEXES, and their parsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sql.command import Command
from sql.errors import Unsupported
from sql.parser_cursor import Cursor
from sql.table_name import TableName

if TYPE_CHECKING:
    from sql.results import StatementResult
    from sql.services import Services, StatementContext


@dataclass(frozen=True, slots=True)
class CreateIndex(Command):
    """CREATE [UNIQUE] INDEX [IF NOT EXISTS] name ON [ns.]t (a [, b …])."""

    impersonable: ClassVar[bool] = True
    name: str
    table: TableName
    columns: tuple[str, ...]
    unique: bool = False
    if_not_exists: bool = False

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Define the index and build it, here or by a job."""
        from sql.indexes.definitions import create_index

        return create_index(self, context, services)


@dataclass(frozen=True, slots=True)
class DropIndex(Command):
    """DROP INDEX [IF EXISTS] [ns.]name [ON [ns.]t]."""

    impersonable: ClassVar[bool] = True
    name: TableName
    table: TableName | None = None
    if_exists: bool = False

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Take the index out of its table's definition; its space comes back later."""
        from sql.indexes.definitions import drop_index

        return drop_index(self, context, services)


@dataclass(frozen=True, slots=True)
class ShowIndexes(Command):
    """SHOW INDEXES [FROM | ON | IN [ns.]t]."""

    reads_only: ClassVar[bool] = True
    impersonable: ClassVar[bool] = True
    table: TableName | None = None

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """The indexes of the tables that the caller may know of."""
        from sql.indexes.listing import show_indexes

        return show_indexes(self, context, services)


def parse_create_index(cursor: Cursor) -> CreateIndex:
    """CREATE INDEX, behind these words."""
    return _create(cursor, unique=False)


def parse_create_unique_index(cursor: Cursor) -> CreateIndex:
    """CREATE UNIQUE INDEX, behind these words."""
    return _create(cursor, unique=True)


def _create(cursor: Cursor, *, unique: bool) -> CreateIndex:
    cursor.accept("concurrently")  # every index is built so
    if_not_exists = cursor.if_not_exists()
    if cursor.at("on") and cursor.word(1) != "on":
        cursor.fail("An index needs a name: CREATE INDEX name ON table (column, …).")
    name = cursor.name("an index's name").lower()
    cursor.expect("on")
    table = cursor.table_name()
    if cursor.accept("using") and not cursor.accept("btree"):
        cursor.fail("Indexes are ordered (BTREE); there is no other kind here.", kind=Unsupported)
    cursor.expect("(")
    columns = [_column(cursor)]
    while cursor.accept(","):
        columns.append(_column(cursor))
    cursor.expect(")")
    if cursor.at("where"):
        cursor.fail("An index over a part of the rows (WHERE) is not supported.", kind=Unsupported)
    if cursor.at("include"):
        cursor.fail("INCLUDE is not supported; name the columns in the index itself.", kind=Unsupported)
    return CreateIndex(name, table, tuple(columns), unique, if_not_exists)


def _column(cursor: Cursor) -> str:
    if cursor.at("("):
        cursor.fail("An index over an expression is not supported; it takes columns.", kind=Unsupported)
    name = cursor.column_name()
    if cursor.at("("):
        cursor.fail("An index over an expression is not supported; it takes columns.", kind=Unsupported)
    if not cursor.accept("desc"):  # taken and without effect: an index is read in both directions
        cursor.accept("asc")
    if cursor.accept("nulls") and not cursor.accept("first"):
        cursor.expect("last")
    return name


def parse_drop_index(cursor: Cursor) -> DropIndex:
    """DROP INDEX, behind these words."""
    cursor.accept("concurrently")
    if_exists = cursor.if_exists()
    name = cursor.table_name()
    return DropIndex(name, cursor.table_name() if cursor.accept("on") else None, if_exists)


def parse_show_indexes(cursor: Cursor) -> ShowIndexes:
    """SHOW INDEXES, behind these words."""
    named = any(cursor.accept(word) for word in ("from", "on", "in"))
    return ShowIndexes(cursor.table_name() if named else None)
