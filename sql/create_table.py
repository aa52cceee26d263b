"""CREATE TABLE: from the statement to a `TableDef`, every name, type, key, default and check verified.

The result's message is `CREATE TABLE: shared table ns.t created successfully`. The reference writes
`CREATE TABLE via Raft consensus: shared table ns.t created successfully`; there is no Raft here, so the words are
not repeated, and what clients look for in it stays.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlglot import exp

from sql.checks import canonical_check, validate_check
from sql.defaults import compile_default
from sql.errors import ExecutionError, PermissionDenied, Unsupported
from sql.identity import Identity, Role, may_write_shared
from sql.names import check_column_name, check_table_name
from sql.namespaces import require_namespace
from sql.results import StatementResult
from sql.row_expressions import Evaluation
from sql.statements import ColumnSpec, CreateTable
from sql.storages.registry import storage_of
from sql.table_options import parse_options
from sql.writing import RowWriter, StatementContext, time_of
from storage.catalog import CheckDef, ColumnDef, TableDef, TableKind, UniqueDef
from storage.types import KEY_KINDS, ColumnType, Kind

MAX_COLUMNS = 1_000
MAX_KEY_COLUMNS = 32
SYSTEM_NAMESPACES = frozenset({"system", "information_schema", "pg_catalog"})


def run(
    statement: CreateTable, txn: RowWriter, context: StatementContext, evaluation: Evaluation | None = None
) -> StatementResult:
    """Create the table."""
    namespace = statement.table.namespace or context.namespace
    name = statement.table.name
    full_name = f"{namespace}.{name}"
    if namespace in SYSTEM_NAMESPACES:
        raise PermissionDenied(f"Permission denied: tables cannot be created in namespace '{namespace}'")
    kind = _kind(statement, namespace, context.identity)
    _check_rights(context.identity, kind)
    require_namespace(txn, namespace)
    if txn.catalog.table(namespace, name) is not None:
        if statement.if_not_exists:
            return StatementResult(message=f"Table {full_name} already exists (skipped)")
        raise ExecutionError(f"Already exists: Table {full_name} already exists")
    if txn.catalog.view(namespace, name) is not None:
        raise ExecutionError(f"Already exists: View {full_name} already exists; it is not a table")
    check_table_name(name)
    options = parse_options(statement.options, kind, lambda storage_id: storage_of(txn, storage_id) is not None)
    if kind is TableKind.SHARED and not may_write_shared(context.identity.role, options.level):
        raise PermissionDenied(
            f"Permission denied: only dba and system may create a table of access level {options.level}"
        )
    now = time_of(txn)
    table = _define(statement, TableDef(
        table_id=txn.allocate_table_id(), namespace=namespace, name=name, kind=kind, columns=(),
        access_level=options.level, owner=context.identity.user, options=options.stored, created_at=now,
        updated_at=now, ttl_seconds=options.ttl_seconds,
    ), evaluation)  # fmt: skip
    txn.put_table(table)
    return StatementResult(message=f"CREATE TABLE: {kind.value} table {full_name} created successfully")


def column_definition(spec: ColumnSpec, column_id: int, *, in_key: bool = False) -> ColumnDef:
    """A column of a table, its name and default verified."""
    check_column_name(spec.name)
    default = None
    if spec.default is not None:
        default = compile_default(spec.default, spec.name, spec.type).text
    return ColumnDef(
        column_id=column_id, name=spec.name, type=spec.type, nullable=not (spec.not_null or in_key), default=default,
        comment=spec.comment, always_generated=spec.always_generated,
    )  # fmt: skip


def named_checks(
    table: str, checks: Iterable[tuple[str | None, exp.Expr, str | None]], taken: set[str]
) -> tuple[CheckDef, ...]:
    """Check definitions; those without a name get `<table>_<column>_check`, numbered if need be."""
    return tuple(
        CheckDef(_constraint_name(name, f"{table}_{column}_check" if column else f"{table}_check", taken),
                 canonical_check(expression))
        for name, expression, column in checks
    )  # fmt: skip


def _kind(statement: CreateTable, namespace: str, identity: Identity) -> TableKind:
    """The table's kind. Without one, in a namespace named like the caller, users and services mean USER."""
    if statement.kind is not None:
        return statement.kind
    return TableKind.USER if not identity.role.is_admin and namespace == identity.user else TableKind.SHARED


def _check_rights(identity: Identity, kind: TableKind) -> None:
    if kind is TableKind.SHARED and identity.role.rank < Role.SERVICE.rank:
        raise PermissionDenied(
            "Permission denied: the role user may create USER and STREAM tables only (CREATE USER TABLE …), not "
            "SHARED ones"
        )


def _define(statement: CreateTable, table: TableDef, evaluation: Evaluation | None) -> TableDef:
    """Columns, keys and checks of the statement put into the definition."""
    specs = statement.columns
    if not specs:
        raise ExecutionError(f"Invalid operation: Table {table.full_name} must have at least one column")
    if len(specs) > MAX_COLUMNS:
        raise ExecutionError(f"Invalid operation: a table has at most {MAX_COLUMNS:,} columns, not {len(specs):,}")
    by_name: dict[str, ColumnSpec] = {}
    for spec in specs:
        if spec.name in by_name:
            raise ExecutionError(f"Invalid operation: Duplicate column name '{spec.name}'")
        by_name[spec.name] = spec
    key = _primary_key(statement, by_name)
    if table.expires:
        _refuse_unique(statement)
    for spec in specs:
        refuse_file(table, spec.name, spec.type)
    columns = tuple(
        column_definition(spec, number, in_key=spec.name in key) for number, spec in enumerate(specs, start=1)
    )
    ids = {column.name: column.column_id for column in columns}
    taken: set[str] = set()
    uniques = _uniques(statement, by_name, key, ids, table.name, taken)
    written: list[tuple[str | None, exp.Expr, str | None]] = [
        (name, check, spec.name) for spec in specs for name, check in spec.checks
    ]
    written += [(name, check, None) for name, check in statement.checks]
    for _, expression, _ in written:
        validate_check(expression, columns, evaluation and evaluation.binding)
    key_ids = tuple(ids[name] for name in key)
    return msgspec.structs.replace(
        table, columns=columns, uniques=uniques, checks=named_checks(table.name, written, taken),
        primary_key=() if table.expires else key_ids, declared_key=key_ids if table.expires else (),
        next_column_id=len(columns) + 1, next_index_id=len(uniques) + 1,
    )  # fmt: skip


def refuse_file(table: TableDef, column: str, kind: ColumnType) -> None:
    """A STREAM table holds no files: its rows end by themselves, and what is stored for them would have to follow."""
    if table.expires and kind.kind is Kind.FILE:
        raise Unsupported(
            f"FILE columns are not available in STREAM tables (column '{column}'); use a USER or SHARED table."
        )


def _refuse_unique(statement: CreateTable) -> None:
    """A STREAM table keeps no key index: a promise of distinct values could not be kept."""
    if statement.uniques or any(spec.unique for spec in statement.columns):
        raise Unsupported(
            "UNIQUE is not available in STREAM tables: they only append rows and keep no key index. A PRIMARY KEY may "
            "be declared; it is not enforced."
        )


def _primary_key(statement: CreateTable, by_name: dict[str, ColumnSpec]) -> tuple[str, ...]:
    inline = tuple(spec.name for spec in statement.columns if spec.primary_key)
    if len(inline) > 1 or (inline and statement.primary_key and inline != statement.primary_key):
        raise ExecutionError(
            "Invalid operation: more than one PRIMARY KEY; a composite key is written PRIMARY KEY (a, b)"
        )
    key = statement.primary_key or inline
    _check_key_columns("PRIMARY KEY", key, by_name)
    return key


def _uniques(
    statement: CreateTable,
    by_name: dict[str, ColumnSpec],
    key: tuple[str, ...],
    ids: dict[str, int],
    table: str,
    taken: set[str],
) -> tuple[UniqueDef, ...]:
    """UNIQUE constraints of columns and of the table; one that repeats the primary key or another is left out."""
    written: list[tuple[str | None, tuple[str, ...]]] = [
        (None, (spec.name,)) for spec in statement.columns if spec.unique
    ]
    written += list(statement.uniques)
    seen = {frozenset(key)}
    uniques: list[UniqueDef] = []
    for name, columns in written:
        _check_key_columns("UNIQUE", columns, by_name)
        if frozenset(columns) in seen:
            continue
        seen.add(frozenset(columns))
        full_name = _constraint_name(name, f"{table}_{'_'.join(columns)}_key", taken)
        uniques.append(UniqueDef(len(uniques) + 1, full_name, tuple(ids[column] for column in columns)))
    return tuple(uniques)


def _check_key_columns(what: str, key: tuple[str, ...], by_name: dict[str, ColumnSpec]) -> None:
    if len(key) > MAX_KEY_COLUMNS:
        raise ExecutionError(f"Invalid operation: {what} has at most {MAX_KEY_COLUMNS} columns, not {len(key)}")
    for position, name in enumerate(key):
        spec = by_name.get(name)
        if spec is None:
            raise ExecutionError(f"Invalid operation: {what} names column '{name}', which the table does not have")
        if name in key[:position]:
            raise ExecutionError(f"Invalid operation: {what} names column '{name}' twice")
        if spec.type.kind not in KEY_KINDS:
            raise ExecutionError(
                f"Invalid operation: column '{name}' of type {spec.type} cannot be part of a {what} constraint"
            )


def _constraint_name(name: str | None, generated: str, taken: set[str]) -> str:
    if name is not None:
        if name in taken:
            raise ExecutionError(f"Invalid operation: Duplicate constraint name '{name}'")
    else:
        name, number = generated, 0
        while name in taken:
            number += 1
            name = f"{generated}{number}"
    taken.add(name)
    return name
