"""The query that finds the rows of an UPDATE or DELETE: `SELECT _seq, columns, new values FROM t WHERE …`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sqlglot import exp

from sql.errors import ExecutionError
from sql.plan import SEQ
from sql.write_targets import located
from storage.catalog import TableDef


def rows_query(
    ast: exp.Update | exp.Delete,
    table: TableDef,
    alias: str,
    verb: str,
    columns: Sequence[str],
    computed: Sequence[exp.Expr],
    others: object,
) -> exp.Select:
    """The query; `others` are the tables of FROM or USING. Raises ExecutionError when there is no WHERE."""
    where = ast.args.get("where")
    if where is None:
        raise located(
            ExecutionError, f"Invalid operation: {verb} requires a WHERE clause (WHERE true means every row)", ast
        )
    outputs: list[exp.Expr] = [exp.column(name, table=alias, quoted=True) for name in (SEQ, *columns)]
    outputs += [named(node, f"_new_{number}") for number, node in enumerate(computed)]
    target = ast.this.copy()
    query = exp.Select(expressions=outputs).from_(target, copy=False)
    for other in _tables(others):
        query.append("joins", exp.Join(this=other))
    query.set("where", where.copy())
    if (with_ := ast.args.get("with_")) is not None:
        query.set("with_", with_.copy())
    return query


def named(node: exp.Expr, name: str) -> exp.Alias:
    """An output of a query under a name; `exp.alias_` would name a subquery as a table is named."""
    return exp.Alias(this=node.copy(), alias=exp.to_identifier(name, quoted=True))


def found_rows(rows: pa.Table) -> pa.Table:
    """Each row once: with FROM or USING a row may be found with several partners, and the first one counts."""
    seqs = rows.column(0).to_numpy()
    _, first = np.unique(seqs, return_index=True)
    return rows if len(first) == len(seqs) else rows.take(pa.array(np.sort(first)))


def _tables(others: object) -> list[exp.Expr]:
    """The tables of FROM (`exp.From`) or USING (a list), each with its own joins."""
    if isinstance(others, exp.From):
        return [others.this.copy()]
    return [table.copy() for table in others] if isinstance(others, list) else []
