"""What shows indexes: `system.indexes` and SHOW INDEXES."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from sql.results import ResultColumn, StatementResult
from sql.rights import readable_tables, resolve_table
from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.catalog import TableDef
from storage.types import BOOLEAN, TEXT, TIMESTAMP, arrow_type
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.indexes.statements import ShowIndexes
    from sql.services import Services, StatementContext

INDEX_COLUMNS = (
    SystemColumn("namespace", TEXT, nullable=False),
    SystemColumn("table_name", TEXT, nullable=False),
    SystemColumn("index_name", TEXT, nullable=False),
    SystemColumn("columns", TEXT, nullable=False),
    SystemColumn("is_unique", BOOLEAN, nullable=False),
    SystemColumn("state", TEXT, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("job_id", TEXT),
)


def _rows_of(tables: Iterable[TableDef]) -> Iterator[tuple[object, ...]]:
    for table in tables:
        for index in sorted(table.indexes, key=lambda index: index.name):
            columns = ", ".join(column.name for column in table.unique_columns(index))
            yield (
                table.namespace, table.name, index.name, columns, index.unique, index.state.value, index.created_at,
                index.job or None,
            )  # fmt: skip


def _system_rows(view: ReadView, context: SystemContext) -> Rows:
    return _rows_of(view.catalog.tables())


INDEXES_TABLE = SystemTable(
    SYSTEM, "indexes", INDEX_COLUMNS, _system_rows, key=("namespace", "table_name", "index_name")
)


def show_indexes(statement: ShowIndexes, context: StatementContext, services: Services) -> StatementResult:
    """The indexes of one table, or of all that the caller may know of."""
    with services.snapshot(context) as view:
        if statement.table is None:
            tables = readable_tables(context.identity.role, view.catalog)
        else:
            name = statement.table
            found = resolve_table(
                view.catalog, services.system, context.identity.role, name.namespace or context.namespace, name.name,
                line=name.line, column=name.column,
            )  # fmt: skip
            tables = [found] if isinstance(found, TableDef) else []
        rows = list(_rows_of(tables))
    arrays = [pa.array([row[i] for row in rows], arrow_type(c.type)) for i, c in enumerate(INDEX_COLUMNS)]
    return StatementResult(
        columns=tuple(ResultColumn(c.name, c.type, () if c.nullable else ("nn",)) for c in INDEX_COLUMNS),
        table=pa.table(arrays, names=[c.name for c in INDEX_COLUMNS]),
        row_count=len(rows),
    )
