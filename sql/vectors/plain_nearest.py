"""The nearest rows without DuckDB: columns of one table, a condition that is compiled, ORDER BY a distance, LIMIT.

DuckDB takes several times as long to be shown some rows and to sort them again as all of the search. What it would
give is known: rows in the order of their exact distances, those that the condition keeps, without those whose
embedding is NULL as long as there are enough others. Where there are not, the query is DuckDB's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sql.expressions import CompiledExpression
from sql.native import matching
from sql.native_plan import compile_condition, parameter_types, plain_outputs
from sql.plan import HIDDEN_COLUMNS, Nearest, PlainNearest, QueryPlan
from sql.scanning import select
from sql.scope import TableUse
from sql.vectors.functions import embedding_parameters
from sql.vectors.indexes import Keep, VectorIndexes
from sql.vectors.metrics import Doubles
from storage.catalog import TableDef
from storage.types import arrow_type
from storage.views import ReadView


class Wanted(NamedTuple):
    """What one execution asks for."""

    query: Doubles
    limit: int
    offset: int


def plain_nearest(tree: exp.Select, use: TableUse) -> PlainNearest | None:
    """What runs without DuckDB of a query that `sql.vectors.nearest` has found to need its nearest rows only."""
    if len(tree.args["order"].expressions) != 1:
        return None
    outputs = plain_outputs(tree, use)
    types = parameter_types(tree, use, {index: kind for index, (kind, _) in embedding_parameters(tree).items()})
    if not outputs or types is None:
        return None
    where = tree.args.get("where")
    condition = None if where is None else compile_condition(where, use, types)
    if where is not None and condition is None:
        return None
    return PlainNearest(
        tuple(name for _, name in outputs), condition, {index: kind for index, (kind, _) in types.items()}
    )


def fits(plain: PlainNearest, plan: QueryPlan) -> bool:
    """Whether the plan types parameters and results as the columns have it."""
    if any(plain.parameters.get(parameter.index) != parameter.type for parameter in plan.parameters):
        return False
    [table] = plan.tables
    types = table.arrow_schema
    return len(plan.columns) == len(plain.outputs) and all(
        name not in HIDDEN_COLUMNS and arrow_type(column.type) == types.field(name).type
        for column, name in zip(plan.columns, plain.outputs, strict=True)
    )


def run_plain(
    nearest: Nearest,
    table: TableDef,
    partition: str,
    view: ReadView,
    values: Mapping[int, object],
    vectors: VectorIndexes,
    wanted: Wanted,
) -> pa.Table | None:
    """The answer, its columns in the order of the outputs; None when there are too few rows. Raises NotCovered."""
    plain = nearest.plain
    assert plain is not None
    keep = None if plain.condition is None else _keeping(plain.condition, table, partition, view, values)
    count = wanted.limit + wanted.offset
    found = vectors.search(view, table, partition, nearest.column, nearest.metric, wanted.query, count, keep)
    if len(found.seqs) < count:
        return None
    names = list(dict.fromkeys(plain.outputs))
    rows = view.fetch(table, partition, found.seqs[wanted.offset :].tolist(), names)
    return rows.select(list(plain.outputs))


def _keeping(
    condition: CompiledExpression, table: TableDef, partition: str, view: ReadView, values: Mapping[int, object]
) -> Keep:
    """What tells which rows the condition keeps."""
    names = sorted({key.rpartition(".")[2] for key in condition.columns})
    stored = [name for name in names if name not in HIDDEN_COLUMNS]

    def keep(seqs: Sequence[int]) -> npt.NDArray[np.bool_]:
        rows = select(view.fetch(table, partition, seqs, stored, with_seq=True), names)
        kept = pc.fill_null(matching(condition, rows, values), fill_value=False)
        found: npt.NDArray[np.bool_] = kept.to_numpy(zero_copy_only=False)
        return found

    return keep
