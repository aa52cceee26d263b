"""ALTER TABLE: one operation, instant through schema versions.

No operation rewrites rows. Rows keep the schema version that they were written with, and read as the newest one: an
added column reads as its `initial` value, a widened one is cast, a dropped one is left out. What the new definition
promises about old rows (NOT NULL, CHECK) is verified by a vectorised scan before the definition is put; the
statement runs on the writer, so no row can slip in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from sql.checks import CompiledCheck, check_rows, columns_of_check, compile_checks, rename_in_check, validate_check
from sql.create_table import MAX_COLUMNS, column_definition, named_checks, refuse_file
from sql.defaults import Default, compile_default, constant_array, stored_default
from sql.errors import ExecutionError, PermissionDenied, Unsupported
from sql.identity import Identity, Role, may_write_shared
from sql.names import check_column_name
from sql.results import StatementResult
from sql.row_expressions import Evaluation, Run
from sql.statements import (
    AddColumn,
    AlterTable,
    DropColumn,
    ModifyColumn,
    RenameColumn,
    SetAccessLevel,
    SetDefault,
    SetNotNull,
    SetOption,
    SetTtl,
)
from sql.storages.registry import storage_of
from sql.table_options import parse_changeable, parse_ttl
from sql.topics.sources import refuse_in_sources
from sql.type_changes import convert_initial, initial_of, is_widening, keeps_keys
from sql.writing import RowWriter, StatementContext, time_of
from storage.catalog import AccessLevel, ColumnDef, SchemaVersion, TableDef

MAX_HISTORY = 100_000
"""Column definitions that the earlier schema versions of a table may hold together."""


class _Change(NamedTuple):
    """What an operation comes to: the new definition, or None when there is nothing to change."""

    description: str
    table: TableDef | None


def run(
    statement: AlterTable,
    table: TableDef,
    txn: RowWriter,
    context: StatementContext,
    evaluation: Evaluation | None = None,
) -> StatementResult:
    """Carry out the operation on `table`, which the caller may know of."""
    operation = statement.operation
    check_may_alter(context.identity, table)
    if isinstance(operation, AddColumn):
        run_checks = Run(txn, (), context.identity, evaluation and evaluation.services)
        change = _add_column(operation, table, run_checks, evaluation)
    elif isinstance(operation, DropColumn):
        change = _drop_column(operation, table, txn)
    elif isinstance(operation, ModifyColumn):
        change = _modify_column(operation, table, txn)
    elif isinstance(operation, SetNotNull):
        change = _set_not_null(operation, table, txn)
    elif isinstance(operation, SetDefault):
        change = _set_default(operation, table)
    elif isinstance(operation, RenameColumn):
        change = _rename_column(operation, table, txn)
    elif isinstance(operation, SetTtl):
        change = _set_ttl(operation, table, txn)
    elif isinstance(operation, SetOption):
        change = _set_option(operation, table, txn)
    else:
        change = _set_access_level(operation, table, context.identity)
    if change.table is None:
        return StatementResult(
            message=f"Table {table.full_name} unchanged: {change.description} "
            f"(version {table.schema_version} - no changes needed)"
        )
    version = table.schema_version + 1
    now = time_of(txn)
    history = (*table.history, SchemaVersion(table.schema_version, table.columns, table.versioned_at))
    _check_history(history, table)
    txn.put_table(
        msgspec.structs.replace(change.table, schema_version=version, updated_at=now, versioned_at=now, history=history)
    )
    return StatementResult(
        message=f"Table {table.full_name} altered successfully: {change.description} (version {version})"
    )


def _check_history(history: Sequence[SchemaVersion], table: TableDef) -> None:
    """All versions of a schema are kept, and every statement holds them: their number has a bound."""
    kept = sum(len(version.columns) for version in history)
    if kept > MAX_HISTORY:
        raise ExecutionError(
            f"Invalid operation: the schema versions of table {table.full_name} hold more than {MAX_HISTORY:,} columns "
            "together, and all of them are kept as long as the table lives; create a new table instead"
        )


def check_may_alter(identity: Identity, table: TableDef) -> None:
    """Users alter what they created; services also what others did, within the access level; admins everything."""
    if identity.role.is_admin:
        return
    if not table.per_user and not may_write_shared(identity.role, table.access_level):
        raise PermissionDenied(f"Permission denied: the role {identity.role} may not alter table {table.full_name}")
    if identity.role is Role.USER and table.owner != identity.user:
        raise PermissionDenied(f"Permission denied: table {table.full_name} was created by another user")


def has_rows(table: TableDef, txn: RowWriter) -> bool:
    """Whether any partition has a live row."""
    return any(txn.count(table, partition) for partition in txn.partitions(table))


def _add_column(operation: AddColumn, table: TableDef, run: Run, evaluation: Evaluation | None) -> _Change:
    binding = evaluation and evaluation.binding
    spec = operation.spec
    description = f"ADD COLUMN {spec.name} {spec.type}"
    if spec.name in table.by_name:
        if operation.if_not_exists:
            return _Change(description, None)
        raise ExecutionError(f"Already exists: Column '{spec.name}' already exists in table {table.full_name}")
    if spec.primary_key or spec.unique:
        raise Unsupported("ADD COLUMN cannot add a PRIMARY KEY or UNIQUE column; create a new table instead")
    if len(table.columns) >= MAX_COLUMNS:
        raise ExecutionError(f"Invalid operation: a table has at most {MAX_COLUMNS:,} columns")
    refuse_file(table, spec.name, spec.type)
    column = column_definition(spec, table.next_column_id)
    value: object = None
    populated = has_rows(table, run.txn)
    if populated:
        value = _initial_value(column, stored_default(column), run.txn)
        column = msgspec.structs.replace(column, initial=initial_of(column.type, value))
    columns = (*table.columns, column)
    for _, expression in spec.checks:
        validate_check(expression, columns, binding)
    taken = {check.name for check in table.checks} | {unique.name for unique in table.uniques}
    added = named_checks(table.name, [(name, check, spec.name) for name, check in spec.checks], taken)
    changed = msgspec.structs.replace(
        table, columns=columns, next_column_id=table.next_column_id + 1, checks=(*table.checks, *added)
    )
    if populated and added:
        new_checks = compile_checks(msgspec.structs.replace(changed, checks=added), binding)
        _verify_checks(table, new_checks, column, value, run)
    return _Change(description, changed)


def _initial_value(column: ColumnDef, default: Default | None, txn: RowWriter) -> object:
    """What existing rows read as in a new column: the value of its default."""
    if default is not None and default.volatile:
        raise ExecutionError(
            f"Invalid operation: existing rows would all get the same {default.text} in column '{column.name}'; "
            "add the column without a default, fill it, then ALTER COLUMN … SET DEFAULT"
        )
    value = None if default is None else default.fixed(time_of(txn))
    if value is None and not column.nullable:
        raise ExecutionError(
            f"Constraint violation: NOT NULL column '{column.name}' needs a DEFAULT, because the table has rows"
        )
    return value


def _verify_checks(
    table: TableDef, checks: Sequence[CompiledCheck], column: ColumnDef, value: object, run: Run
) -> None:
    """The new checks hold for the existing rows, which have `value` in the new column."""
    used = {name for check in checks for name in check.columns} - {column.name}
    names = sorted(used) or [table.columns[0].name]
    for partition in run.txn.partitions(table):
        rows = run.txn.scan(table, partition, names)
        check_rows(checks, rows.append_column(column.name, constant_array(column.type, value, rows.num_rows)), run)


def _drop_column(operation: DropColumn, table: TableDef, txn: RowWriter) -> _Change:
    description = f"DROP COLUMN {operation.name}"
    column = table.by_name.get(operation.name)
    if column is None:
        if operation.if_exists:
            return _Change(description, None)
        raise _no_column(table, operation.name)
    _refuse_in_constraints(table, column, "dropped")
    refuse_in_sources(table, column, txn.catalog, "dropped")
    if len(table.columns) == 1:
        raise ExecutionError(f"Invalid operation: Column '{column.name}' is the only column of {table.full_name}")
    left = tuple(other for other in table.columns if other is not column)
    indexes = tuple(index for index in table.vector_indexes if index.column_id != column.column_id)
    return _Change(description, msgspec.structs.replace(table, columns=left, vector_indexes=indexes))


def _modify_column(operation: ModifyColumn, table: TableDef, txn: RowWriter) -> _Change:
    column = _column(table, operation.name)
    nullability = {None: "", True: " NOT NULL", False: " NULL"}[operation.not_null]
    description = f"MODIFY COLUMN {column.name} {operation.type}{nullability}"
    changed = column
    refuse_file(table, column.name, operation.type)
    if operation.type != column.type:
        changed = _with_type(table, column, operation, txn)
    if operation.not_null is not None and operation.not_null == column.nullable:
        _check_nullability(table, column, operation.not_null, txn)
        changed = msgspec.structs.replace(changed, nullable=not operation.not_null)
    if changed == column:
        return _Change(description, None)
    columns = tuple(changed if other is column else other for other in table.columns)
    next_id = max(table.next_column_id, changed.column_id + 1)
    return _Change(description, msgspec.structs.replace(table, columns=columns, next_column_id=next_id))


def _with_type(table: TableDef, column: ColumnDef, operation: ModifyColumn, txn: RowWriter) -> ColumnDef:
    """The column with its new type."""
    new = operation.type
    if table.vector_index(column.name) is not None:
        raise ExecutionError(
            f"Invalid operation: Column '{column.name}' has a vector index; drop that before its type is changed"
        )
    in_key = _in_key(table, column)
    if in_key and not (is_widening(column.type, new) and keeps_keys(column.type, new)):
        raise ExecutionError(
            f"Invalid operation: Column '{column.name}' is part of a key; "
            f"its type cannot change from {column.type} to {new}"
        )
    if not keeps_keys(column.type, new):
        _refuse_in_constraints(table, column, f"changed from {column.type} to {new}")
    refuse_in_sources(table, column, txn.catalog, f"changed from {column.type} to {new}")
    if column.default is not None:
        expression = stored_default(column)
        assert expression is not None
        compile_default(expression.expression, column.name, new)
    if is_widening(column.type, new):
        return msgspec.structs.replace(column, type=new, initial=convert_initial(column.initial, new))
    if not has_rows(table, txn):  # nothing to convert; a new id, as batches of dead rows still have the old type
        return msgspec.structs.replace(column, type=new, initial=None, column_id=table.next_column_id)
    raise ExecutionError(
        f"Invalid operation: Column '{column.name}' cannot change from {column.type} to {new} in place, because "
        "not every value of the old type is one of the new; add a new column, UPDATE it from the old one, and "
        "drop that"
    )


def _set_not_null(operation: SetNotNull, table: TableDef, txn: RowWriter) -> _Change:
    column = _column(table, operation.name)
    description = f"{'SET' if operation.not_null else 'DROP'} NOT NULL on column {column.name}"
    if operation.not_null is not column.nullable:
        return _Change(description, None)
    _check_nullability(table, column, operation.not_null, txn)
    return _Change(description, _with_column(table, msgspec.structs.replace(column, nullable=not operation.not_null)))


def _check_nullability(table: TableDef, column: ColumnDef, not_null: bool, txn: RowWriter) -> None:
    """A key column stays NOT NULL; a column becomes NOT NULL only when no row has NULL in it."""
    if not not_null:
        if column.column_id in table.shown_key:
            raise ExecutionError(f"Invalid operation: Column '{column.name}' is part of the primary key")
        return
    for partition in txn.partitions(table):
        nulls = txn.scan(table, partition, [column.name]).column(0).null_count
        if nulls:
            raise ExecutionError(
                f"Constraint violation: NOT NULL constraint violation: column '{column.name}' holds NULL in "
                "existing rows"
            )


def _set_default(operation: SetDefault, table: TableDef) -> _Change:
    column = _column(table, operation.name)
    if column.always_generated:
        raise ExecutionError(f"Invalid operation: Column '{column.name}' is GENERATED ALWAYS AS IDENTITY")
    if operation.default is None:
        text = None
        description = f"DROP DEFAULT on column {column.name}"
    else:
        text = compile_default(operation.default, column.name, column.type).text
        description = f"SET DEFAULT {text} on column {column.name}"
    if text == column.default:
        return _Change(description, None)
    return _Change(description, _with_column(table, msgspec.structs.replace(column, default=text)))


def _rename_column(operation: RenameColumn, table: TableDef, txn: RowWriter) -> _Change:
    column = _column(table, operation.old)
    description = f"RENAME COLUMN {operation.old} TO {operation.new}"
    if operation.new == operation.old:
        return _Change(description, None)
    check_column_name(operation.new)
    if operation.new in table.by_name:
        raise ExecutionError(f"Already exists: Column '{operation.new}' already exists in table {table.full_name}")
    refuse_in_sources(table, column, txn.catalog, "renamed", shown=False)
    checks = tuple(
        msgspec.structs.replace(check, expression=rename_in_check(check.expression, operation.old, operation.new))
        for check in table.checks
    )
    renamed = _with_column(table, msgspec.structs.replace(column, name=operation.new))
    return _Change(description, msgspec.structs.replace(renamed, checks=checks))


def _set_access_level(operation: SetAccessLevel, table: TableDef, identity: Identity) -> _Change:
    description = f"SET ACCESS LEVEL {operation.level.value.upper()}"
    if table.per_user:
        raise ExecutionError("Invalid operation: ACCESS LEVEL applies to SHARED tables only")
    if operation.level is AccessLevel.DBA and not identity.role.is_admin:
        raise PermissionDenied("Permission denied: only dba and system may set the access level DBA")
    if operation.level is table.access_level:
        return _Change(description, None)
    return _Change(description, msgspec.structs.replace(table, access_level=operation.level))


def _set_option(operation: SetOption, table: TableDef, txn: RowWriter) -> _Change:
    """FLUSH_POLICY and STORAGE_ID: rows that are flushed from now on go to the storage, files that are there stay."""
    value = parse_changeable(
        operation.name, operation.value, table.kind, lambda storage_id: storage_of(txn, storage_id) is not None
    )
    name = operation.name.lower()
    options = {key: text for key, text in table.options.items() if key != name}
    if value is not None:
        options[name] = value
    shown = "NULL" if value is None else f"'{value}'"
    description = f"SET TBLPROPERTIES ({operation.name} = {shown})"
    return _Change(description, None if options == table.options else msgspec.structs.replace(table, options=options))


def _set_ttl(operation: SetTtl, table: TableDef, txn: RowWriter) -> _Change:
    """Living rows are judged by the new time from now on; what has expired stays so."""
    if not table.expires:
        raise ExecutionError("Invalid operation: TTL_SECONDS applies to STREAM tables only")
    seconds = parse_ttl(operation.seconds)
    description = f"SET TTL_SECONDS {seconds}"
    if seconds == table.ttl_seconds:
        return _Change(description, None)
    expired = txn.expired_through(table)
    return _Change(description, msgspec.structs.replace(table, ttl_seconds=seconds, expired_through=expired))


def _column(table: TableDef, name: str) -> ColumnDef:
    column = table.by_name.get(name)
    if column is None:
        raise _no_column(table, name)
    return column


def _no_column(table: TableDef, name: str) -> ExecutionError:
    return ExecutionError(f"Not found: Column '{name}' does not exist in table {table.full_name}")


def _with_column(table: TableDef, changed: ColumnDef) -> TableDef:
    columns = tuple(changed if column.column_id == changed.column_id else column for column in table.columns)
    return msgspec.structs.replace(table, columns=columns)


def _in_key(table: TableDef, column: ColumnDef) -> bool:
    return column.column_id in table.shown_key or any(
        column.column_id in ids
        for ids in (*(u.column_ids for u in table.uniques), *(i.column_ids for i in table.indexes))
    )


def _refuse_in_constraints(table: TableDef, column: ColumnDef, verb: str) -> None:
    """Raise when a key, UNIQUE or CHECK constraint uses the column."""
    if column.column_id in table.shown_key:
        raise ExecutionError(f"Invalid operation: Column '{column.name}' is part of the primary key; not {verb}")
    for unique in table.uniques:
        if column.column_id in unique.column_ids:
            raise ExecutionError(
                f"Invalid operation: Column '{column.name}' is part of UNIQUE constraint '{unique.name}'; not {verb}"
            )
    for index in table.indexes:
        if column.column_id in index.column_ids:
            raise ExecutionError(
                f"Invalid operation: Column '{column.name}' is part of index '{index.name}'; not {verb}. "
                f"DROP INDEX {index.name} first"
            )
    for check in table.checks:
        if column.name in columns_of_check(check.expression):
            raise ExecutionError(
                f"Invalid operation: Column '{column.name}' is used by CHECK constraint '{check.name}'; not {verb}"
            )
