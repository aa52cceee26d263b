"""Scalar expressions evaluated on Arrow columns and on single rows, exactly as DuckDB would evaluate them.

`compile_expression` covers the expressions of everyday WHERE, SET, CHECK and DEFAULT clauses and answers None for all
others; the caller then asks DuckDB. Covered, for operands whose common type is certain (`expression_nodes.wider`):

- columns, `$n`, literals (numbers, texts, booleans, NULL, DATE '..' and the like)
- AND, OR, NOT with three values; IS [NOT] NULL, TRUE, FALSE; IS [NOT] DISTINCT FROM
- = <> < <= > >=, BETWEEN, IN lists, LIKE and ILIKE with a constant pattern
- + - * % of integers, + - * / of floats and integers, unary minus, ABS
- || of texts and integers, LOWER, UPPER, LENGTH, COALESCE, NULLIF, CASE, widening CASTs

Where a result depends on the values (an overflow, which DuckDB reports; a division by zero; letters beyond ASCII in
LOWER), evaluation raises NotCovered, and the caller asks DuckDB for that statement, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from sql.expression_compiler import Scope, compile_node
from sql.expression_nodes import Inputs, Node, NotCovered
from sql.wire import storage_values
from storage.types import ColumnType, arrow_type

__all__ = ["CompiledExpression", "NotCovered", "compile_expression"]


@dataclass(frozen=True, slots=True)
class CompiledExpression:
    """An expression ready to run; immutable and safe from any thread.

    `columns` are the columns that it reads, by key; `type` is the type of its result.
    """

    type: ColumnType
    columns: Mapping[str, ColumnType]
    _node: Node

    def evaluate(
        self, columns: Mapping[str, pa.Array | pa.ChunkedArray], params: Sequence[object], length: int
    ) -> pa.Array:
        """The result for `length` rows, in the storage Arrow type of `type`.

        `columns` holds at least the columns of `self.columns`, in their storage Arrow types; `params` are storage
        values, `$1` first. Raises NotCovered when the values need DuckDB.
        """
        try:
            result = self._node.run(Inputs(columns, params, length))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise NotCovered(str(error)) from None
        if isinstance(result, pa.Scalar):
            return pa.repeat(result, length)
        if isinstance(result, pa.ChunkedArray):
            return result.chunk(0) if result.num_chunks == 1 else result.combine_chunks()
        return result

    def evaluate_row(self, row: Mapping[str, object], params: Sequence[object]) -> object:
        """The result for one row of storage values, as a storage value. Raises NotCovered as `evaluate` does."""
        if self._node.row is not None:
            return self._node.row(row, params)
        arrays = {key: pa.array([row[key]], arrow_type(kind)) for key, kind in self.columns.items()}
        return storage_values(self.evaluate(arrays, params, 1), self.type)[0]


def compile_expression(
    ast: exp.Expr, columns: Mapping[str, ColumnType], parameters: Mapping[int, ColumnType]
) -> CompiledExpression | None:
    """An evaluator of `ast`, or None where only DuckDB knows the answer.

    `columns` gives the type of each column that may be named, by the text of its reference: `id`, and with a
    qualifier `t.id` or `excluded.id`; a reference that is not a key is not covered. `parameters` gives the
    type of each `$n`.
    """
    scope = Scope(columns, parameters)
    node = compile_node(ast, scope)
    if node is None or node.type is None:
        return None
    return CompiledExpression(node.type, {key: columns[key] for key in sorted(scope.used)}, node)
