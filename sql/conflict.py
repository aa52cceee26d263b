"""INSERT … ON CONFLICT: which new rows meet an existing one, and what happens then.

The conflict target is the primary key or a UNIQUE constraint (without one, DO NOTHING looks at all of them). Rows
whose key has NULL never conflict. Two rows of one statement with the same key: DO NOTHING keeps the first,
DO UPDATE refuses the statement, as PostgreSQL does.

In DO UPDATE, a column name means the existing row, `EXCLUDED.name` the row that was to be inserted. Expressions are
evaluated over one table that holds both, the excluded columns under the names of `excluded_name`. An update that
changes nothing is counted and returned, but not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
from sqlglot import exp

from sql.assignments import Assignments, plan_assignments
from sql.errors import ExecutionError, InvalidSql, Unsupported
from sql.row_expressions import Binding, RowExpressions, Run, unqualified
from sql.violations import value_text
from sql.write_targets import located
from storage.catalog import ColumnDef, IndexState, TableDef
from storage.contiguous import one_array
from storage.keys import encode_columns, encode_marked_columns
from storage.layout import storage_value
from storage.types import ColumnType

EXCLUDED = "excluded"
PRIMARY_INDEX = 0


class ConflictIndex(NamedTuple):
    """A unique index that conflicts are looked up in."""

    index_id: int
    columns: tuple[ColumnDef, ...]
    marked: bool = False
    """Whether it is a unique index, whose keys have marks."""

    def keys(self, rows: pa.Table) -> list[bytes | None]:
        """The key of every row, None where a column of it is NULL."""
        arrays = [one_array(rows.column(column.name)) for column in self.columns]
        types = [column.type for column in self.columns]
        encode = encode_marked_columns if self.marked else encode_columns
        nulls = [array.is_null().to_pylist() for array in arrays if array.null_count]
        if not nulls:
            return list(encode(types, arrays))
        places = [place for place, any_null in enumerate(map(any, zip(*nulls, strict=True))) if not any_null]
        keys: list[bytes | None] = [None] * rows.num_rows
        chosen = pa.array(places, pa.int64())
        for place, key in zip(places, encode(types, [array.take(chosen) for array in arrays]), strict=True):
            keys[place] = key
        return keys

    def values(self, rows: pa.Table, place: int) -> str:
        """One row's key for a message."""
        return ", ".join(
            value_text(storage_value(rows.column(column.name)[place]), column.type) for column in self.columns
        )


class ConflictPlan(NamedTuple):
    """A planned ON CONFLICT. `assignments` is None for DO NOTHING."""

    indexes: tuple[ConflictIndex, ...]
    assignments: Assignments | None
    where: RowExpressions | None

    @property
    def inline(self) -> bool:
        """Whether it needs no query engine."""
        return (self.assignments is None or self.assignments.inline) and (self.where is None or self.where.inline)

    @property
    def kinds_matter(self) -> bool:
        """Whether the JSON kinds of parameters decided types."""
        return (self.assignments is not None and self.assignments.expressions.kinds_matter) or (
            self.where is not None and self.where.kinds_matter
        )


class Split(NamedTuple):
    """New rows by what happens to them: places to insert; places that update, and the `_seq` that each meets."""

    insert: list[int]
    update: list[int]
    old_seqs: list[int]


def excluded_name(column: str) -> str:
    """The name of an excluded column in the table that expressions see."""
    return f"{EXCLUDED}.{column}"


def plan_conflict(node: exp.OnConflict, table: TableDef, alias: str, binding: Binding) -> ConflictPlan:
    """Plan an ON CONFLICT clause."""
    if table.expires:
        raise located(
            Unsupported,
            f"ON CONFLICT is not available for STREAM tables (table '{table.full_name}'): they append every row, also "
            "under a key that is there",
            node,
        )
    action = node.args.get("action")
    text = action.name.upper() if isinstance(action, exp.Expr) else str(action or "").upper()
    indexes = _indexes(node, table)
    if text != "DO UPDATE":
        return ConflictPlan(indexes, None, None)
    if len(indexes) != 1 or not _target_columns(node):
        raise located(InvalidSql, "ON CONFLICT DO UPDATE needs a conflict target: ON CONFLICT (key column, …)", node)
    columns = _both(table)
    sets = [_assignment(item, table, indexes[0], alias) for item in node.expressions]
    assignments = plan_assignments([item for item in sets if item], table, columns, binding, alias)
    assignments.expressions.require()
    where = node.args.get("where")
    condition = None
    if where is not None:
        inner = where.this if isinstance(where, exp.Where) else where
        condition = RowExpressions([_rename(inner, table, alias)], columns, binding, alias=alias).require()
    return ConflictPlan(indexes, assignments, condition)


def split_rows(plan: ConflictPlan, table: TableDef, partition: str, rows: pa.Table, run: Run) -> Split:
    """Sort the new rows by whether they meet an existing row."""
    if plan.assignments is None:
        return Split(_without_conflicts(plan, table, partition, rows, run), [], [])
    (index,) = plan.indexes
    keys = index.keys(rows)
    seen: set[bytes] = set()
    for place, key in enumerate(keys):
        if key is not None and key in seen:
            names = ", ".join(column.name for column in index.columns)
            raise ExecutionError(
                "Constraint violation: ON CONFLICT DO UPDATE cannot affect a row twice: value "
                f"'{index.values(rows, place)}' appears multiple times in the insert batch for column '{names}'"
            )
        if key is not None:
            seen.add(key)
    split = Split([], [], [])
    for place, seq in enumerate(_find(index, keys, table, partition, run)):
        if seq is None:
            split.insert.append(place)
        else:
            split.update.append(place)
            split.old_seqs.append(seq)
    return split


def _without_conflicts(plan: ConflictPlan, table: TableDef, partition: str, rows: pa.Table, run: Run) -> list[int]:
    """The rows that meet none that exists and no earlier one of the batch."""
    free = [True] * rows.num_rows
    batches = [index.keys(rows) for index in plan.indexes]
    for index, keys in zip(plan.indexes, batches, strict=True):
        for place, seq in enumerate(_find(index, keys, table, partition, run)):
            if seq is not None:
                free[place] = False
    seen: list[set[bytes]] = [set() for _ in batches]
    kept = []
    for place in range(rows.num_rows):
        mine = [keys[place] for keys in batches]
        if not free[place] or any(key in earlier for key, earlier in zip(mine, seen, strict=True)):
            continue
        kept.append(place)
        for key, earlier in zip(mine, seen, strict=True):
            if key is not None:
                earlier.add(key)
    return kept


def _find(
    index: ConflictIndex, keys: Sequence[bytes | None], table: TableDef, partition: str, run: Run
) -> list[int | None]:
    """The current `_seq` of every key; None where the key is None."""
    places = [place for place, key in enumerate(keys) if key is not None]
    found: list[int | None] = [None] * len(keys)
    asked = [key for key in keys if key is not None]
    for place, seq in zip(places, run.txn.find(table, partition, asked, index.index_id), strict=True):
        found[place] = seq
    return found


def _indexes(node: exp.OnConflict, table: TableDef) -> tuple[ConflictIndex, ...]:
    every = [ConflictIndex(PRIMARY_INDEX, table.key_columns)] if table.primary_key else []
    every += [ConflictIndex(unique.index_id, table.unique_columns(unique)) for unique in table.uniques]
    every += [
        ConflictIndex(index.index_id, table.unique_columns(index), marked=True)
        for index in table.indexes
        if index.unique and index.state is IndexState.READY
    ]
    wanted = _target_columns(node)
    if not wanted:
        return tuple(every)
    for index in every:
        if {column.name for column in index.columns} == wanted:
            return (index,)
    raise located(
        InvalidSql,
        f"ON CONFLICT ({', '.join(sorted(wanted))}): there is no primary key or UNIQUE constraint on these columns "
        f"of table {table.full_name}",
        node,
    )


def _target_columns(node: exp.OnConflict) -> set[str]:
    names = set()
    for key in node.args.get("conflict_keys") or ():
        inner = key.this if isinstance(key, exp.Ordered) else key
        names.add(inner.name.lower())
    return names


def _both(table: TableDef) -> list[tuple[str, ColumnType]]:
    existing = [(column.name, column.type) for column in table.columns]
    return existing + [(excluded_name(column.name), column.type) for column in table.columns]


def _assignment(item: exp.Expr, table: TableDef, index: ConflictIndex, alias: str) -> exp.Expr | None:
    """`column = expression` over the common table; None for `key = EXCLUDED.key`, which changes nothing."""
    if not isinstance(item, exp.EQ):
        raise located(InvalidSql, "DO UPDATE SET takes column = expression", item)
    value = item.expression
    if (
        index.index_id == PRIMARY_INDEX
        and isinstance(value, exp.Column)
        and value.table.lower() == EXCLUDED
        and value.name.lower() == item.this.name.lower()
        and value.name.lower() in {column.name for column in table.key_columns}
    ):
        return None
    return exp.EQ(this=item.this.copy(), expression=_rename(value, table, alias))


def _rename(expression: exp.Expr, table: TableDef, alias: str) -> exp.Expr:
    """The expression with EXCLUDED.x as the excluded column's own name and t.x as plain x."""

    def rename(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column) or node.table.lower() != EXCLUDED:
            return node
        name = node.name.lower()
        if name not in table.by_name:
            raise located(InvalidSql, f"Column '{name}' does not exist in table {table.full_name}", node)
        renamed = exp.column(exp.to_identifier(excluded_name(name), quoted=True))
        renamed.meta.update(node.meta)
        return renamed

    return unqualified(expression.copy().transform(rename), table, alias)
