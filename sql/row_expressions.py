"""Scalar expressions over given rows: SET, RETURNING, CHECK, the WHERE of an upsert, computed VALUES.

Most are covered by `sql.expressions` and evaluated in place ("inline"). For the others, and when an evaluation meets
values that only DuckDB decides, the rows are shown to the query layer as a table of their own, and a bound query
`SELECT … FROM rows` is run on them. That table exists in the plan's catalog only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from sqlglot import exp

from sql.defaults import ValueSources
from sql.errors import SqlError, Unsupported
from sql.expressions import CompiledExpression, NotCovered, compile_expression
from sql.functions import FunctionContext
from sql.identity import Identity, Role
from sql.plain import parameter
from sql.plan import SEQ, QueryPlan, Source
from sql.row_query import named
from sql.system_tables import SystemTables
from sql.values import converter
from sql.writing import RowWriter
from storage.catalog import AccessLevel, Catalog, ColumnDef, TableDef, TableKind
from storage.cold_segments import Segment
from storage.cold_statistics import Bounds
from storage.contiguous import one_array
from storage.scan_statistics import ScanStatistics
from storage.topic_positions import GroupPosition
from storage.types import ColumnType
from storage.views import ReadView

T = TypeVar("T")

ROWS_NAMESPACE = "_rows"
ROWS_TABLE_ID = 0
"""No stored table has this id."""


class Binding(Protocol):
    """What planning needs: definitions, the caller's role, and the binder."""

    @property
    def catalog(self) -> Catalog:
        """The definitions that the plan is made for."""
        ...

    @property
    def system(self) -> SystemTables:
        """The system tables."""
        ...

    @property
    def role(self) -> Role:
        """The caller's role."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace of unqualified names."""
        ...

    def bind(self, query: exp.Query, catalog: Catalog | None = None) -> QueryPlan:
        """The plan of a query, over other definitions if they are given."""
        ...


class WriteServices(Protocol):
    """What running needs, for one statement."""

    @property
    def functions(self) -> FunctionContext:
        """The identifier generators."""
        ...

    @property
    def now_us(self) -> int:
        """The time of the statement."""
        ...

    def run_query(self, plan: QueryPlan, view: ReadView, params: Sequence[object], identity: Identity) -> pa.Table:
        """The whole result of a plan; no limit on the number of rows. `params` are JSON values."""
        ...


class Evaluation(NamedTuple):
    """What data definition needs to bind and evaluate CHECK conditions that are not inline."""

    binding: Binding
    services: WriteServices


@dataclass(frozen=True)
class Run:
    """One execution of a plan."""

    txn: RowWriter
    params: Sequence[object]
    identity: Identity
    services: WriteServices | None

    @cached_property
    def sources(self) -> ValueSources:
        """Where generated values come from."""
        assert self.services is not None
        return ValueSources(self.services.functions, self.services.now_us, self.identity.user)

    def query(self, plan: QueryPlan, view: ReadView | None = None) -> pa.Table:
        """The result of a query over the transaction's own state."""
        assert self.services is not None
        return self.services.run_query(plan, view or self.txn, self.params, self.identity)


class RowExpressions:
    """Expressions compiled once. `columns` are what they may name, with or without `alias`."""

    def __init__(
        self,
        nodes: Sequence[exp.Expr],
        columns: Sequence[tuple[str, ColumnType]],
        binding: Binding | None,
        *,
        alias: str = "rows",
    ) -> None:
        self._nodes = tuple(nodes)
        self._columns = tuple(columns)
        self._binding = binding
        self._alias = alias
        self._parameters: dict[int, ColumnType] = {}
        self._compiled = self._compile()

    @property
    def inline(self) -> bool:
        """Whether evaluating needs no query engine."""
        return self._compiled is not None

    @property
    def compiled(self) -> tuple[CompiledExpression, ...] | None:
        """The evaluators, one for each expression; None when the query engine is needed."""
        return self._compiled

    @property
    def parameters(self) -> Mapping[int, ColumnType]:
        """The types of the parameters that the evaluators read."""
        return self._parameters

    def require(self) -> RowExpressions:
        """These expressions, after making sure that they can be evaluated; raises what is wrong with them."""
        if self._nodes and not self.inline:
            self._fallback  # noqa: B018 - binds
        return self

    @property
    def kinds_matter(self) -> bool:
        """Whether the JSON kinds of parameters decided types (see `QueryPlan.kinds_matter`)."""
        return (bool(self._parameters) or not self.inline) and self._fallback.kinds_matter

    @cached_property
    def types(self) -> tuple[ColumnType, ...]:
        """The types of the results."""
        if self._compiled is not None:
            return tuple(compiled.type for compiled in self._compiled)
        return tuple(column.type for column in self._fallback.columns[self._first :])

    def evaluate(self, rows: pa.Table, run: Run) -> list[pa.Array]:
        """One array for each expression, of the storage type of `types`."""
        if not self._nodes:
            return []
        if self._compiled is not None:
            try:
                return self._evaluate_inline(self._compiled, rows, run)
            except NotCovered:
                pass
        return self._evaluate_by_query(rows, run)

    def evaluate_once(self, run: Run) -> list[tuple[pa.Array, ColumnType]]:
        """The results of expressions that name no columns, each as an array of one value, and its type."""
        if not self._nodes:
            return []
        one = pa.table({SEQ: pa.array([0], pa.int64())})
        return list(zip(self.evaluate(one, run), self.types, strict=True))

    # --- inline ---------------------------------------------------------------------------------------------------

    def _compile(self) -> tuple[CompiledExpression, ...] | None:
        types = dict(self._columns)
        if any(node.find(exp.Query) for node in self._nodes):
            return None
        if any(node.find(exp.Placeholder, exp.Parameter) for node in self._nodes):
            try:
                self._fallback  # noqa: B018 - binds
            except SqlError:
                return None  # the caller's own query, or `require`, says what is wrong
            self._parameters = {
                parameter.index: parameter.type
                for parameter in self._fallback.parameters
                if parameter.source is Source.REQUEST and not parameter.is_list
            }
        compiled = []
        for node in self._nodes:
            expression = compile_expression(node, types, self._parameters)
            if expression is None:
                return None
            compiled.append(expression)
        return tuple(compiled)

    def _evaluate_inline(self, compiled: Sequence[CompiledExpression], rows: pa.Table, run: Run) -> list[pa.Array]:
        params: list[object] = []
        if self._parameters:
            params = [None] * max(self._parameters)
            for index, column_type in self._parameters.items():
                params[index - 1] = converter(column_type, f"${index}")(parameter(run.params, index))
        columns = {name: rows.column(name) for name, _ in self._columns if name in rows.column_names}
        return [expression.evaluate(columns, params, rows.num_rows) for expression in compiled]

    # --- by query -------------------------------------------------------------------------------------------------

    @property
    def _first(self) -> int:
        """How many columns the bound query gives before the results."""
        return 1 if self._columns else 0

    @cached_property
    def _table(self) -> TableDef:
        columns = tuple(
            ColumnDef(column_id=number, name=name, type=column_type)
            for number, (name, column_type) in enumerate(self._columns, start=1)
        )
        return TableDef(
            table_id=ROWS_TABLE_ID, namespace=ROWS_NAMESPACE, name="rows", kind=TableKind.SHARED, columns=columns,
            access_level=AccessLevel.PUBLIC,
        )  # fmt: skip

    @cached_property
    def _fallback(self) -> QueryPlan:
        """The bound query: `SELECT _seq, … FROM rows`, or just `SELECT …` for expressions without columns."""
        outputs = [named(node, f"_value_{number}") for number, node in enumerate(self._nodes)]
        if self._binding is None:
            raise Unsupported(f"The expression {self._nodes[0].sql(dialect='duckdb')} is not supported here")
        if not self._columns:
            return self._binding.bind(exp.Select(expressions=outputs))
        query = exp.Select(expressions=[exp.column(SEQ, quoted=True), *outputs]).from_(
            exp.table_("rows", db=ROWS_NAMESPACE, alias=exp.to_identifier(self._alias, quoted=True), quoted=True),
            copy=False,
        )
        catalog = self._binding.catalog
        return self._binding.bind(query, catalog.evolve(catalog.version, put=[self._table]))

    def _evaluate_by_query(self, rows: pa.Table, run: Run) -> list[pa.Array]:
        plan = self._fallback
        if not self._columns:
            result = run.query(plan)
            return [one_array(column) for column in result.columns]
        result = run.query(plan, _RowsView(run.txn, self._table, rows))
        order = np.argsort(result.column(0).to_numpy(), kind="stable")
        taken = result.take(pa.array(order))
        return [one_array(column) for column in taken.columns[1:]]


def unqualified(expression: exp.Expr, table: TableDef, alias: str) -> exp.Expr:
    """A copy in which columns that name the table itself (by name or alias) have no qualifier."""
    copy = expression.copy()
    for column in list(copy.find_all(exp.Column)):
        if column.table.lower() in {alias, table.name} and column.find_ancestor(exp.Query) is None:
            column.set("table", None)
            column.set("db", None)
    return copy


class _RowsView:
    """The transaction's state and, as one more table, the rows that expressions are evaluated on."""

    def __init__(self, base: RowWriter, table: TableDef, rows: pa.Table) -> None:
        self._base = base
        self._table = table
        self._rows = rows.select([column.name for column in table.columns])

    @property
    def catalog(self) -> Catalog:
        """Definitions, with the extra table."""
        catalog = self._base.catalog
        return catalog.evolve(catalog.version, put=[self._table])

    @property
    def seq(self) -> int:
        """The base's last `_seq`."""
        return self._base.seq

    def expired_through(self, table: TableDef) -> int:
        """Of the base; rows of the extra table do not expire."""
        return self._base.expired_through(table)

    @property
    def statistics(self) -> ScanStatistics:
        """Of the base."""
        return self._base.statistics

    def scan(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
        bounds: Mapping[str, Bounds] | None = None,
    ) -> pa.Table:
        """The extra table's rows, with their number as `_seq`; other tables as they are."""
        if table.table_id != ROWS_TABLE_ID:
            return self._base.scan(table, partition, columns, with_seq=with_seq, bounds=bounds)
        rows = self._rows
        names = rows.column_names if columns is None else list(columns)
        if with_seq:
            names = [SEQ, *names]
        numbers = pa.array(np.arange(rows.num_rows, dtype=np.int64))
        arrays = [numbers if name == SEQ else rows.column(name) for name in names]
        return pa.Table.from_arrays(arrays, names=names)

    def find(self, table: TableDef, partition: str, keys: Sequence[bytes], index_id: int = 0) -> list[int | None]:
        """Of the base."""
        return self._base.find(table, partition, keys, index_id)

    def fetch(
        self,
        table: TableDef,
        partition: str,
        seqs: Sequence[int],
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
    ) -> pa.Table:
        """Of the base."""
        return self._base.fetch(table, partition, seqs, columns, with_seq=with_seq)

    def get_row(
        self, table: TableDef, partition: str, key: bytes, columns: Sequence[str] | None = None
    ) -> tuple[int, tuple[object, ...]] | None:
        """Of the base; the extra table has no key."""
        return self._base.get_row(table, partition, key, columns)

    def find_range(
        self,
        table: TableDef,
        partition: str,
        low: bytes | None,
        high: bytes | None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[int]:
        """Of the base."""
        return self._base.find_range(table, partition, low, high, limit=limit, reverse=reverse)

    def index_entries(
        self,
        table: TableDef,
        partition: str,
        index_id: int,
        low: bytes | None,
        high: bytes | None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[tuple[bytes, int]]:
        """Of the base."""
        return self._base.index_entries(table, partition, index_id, low, high, limit=limit, reverse=reverse)

    def partitions(self, table: TableDef) -> list[str]:
        """Of the base; the extra table has one."""
        return [""] if table.table_id == ROWS_TABLE_ID else self._base.partitions(table)

    def count(self, table: TableDef, partition: str) -> int:
        """Of the base, or the number of extra rows."""
        return self._rows.num_rows if table.table_id == ROWS_TABLE_ID else self._base.count(table, partition)

    def segments(self, table_id: int | None = None, user: str | None = None) -> Sequence[Segment]:
        """Of the base."""
        return self._base.segments(table_id, user)

    def stored_bytes(self, table: TableDef, partition: str) -> int:
        """Of the base, or of the extra rows."""
        return self._rows.nbytes if table.table_id == ROWS_TABLE_ID else self._base.stored_bytes(table, partition)

    def topic_groups(self) -> Sequence[GroupPosition]:
        """Of the base."""
        return self._base.topic_groups()

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002
        """Of the base."""
        return self._base.get_object(kind, name, type)

    def list_objects(self, kind: str, type: type[T]) -> Iterator[T]:  # noqa: A002
        """Of the base."""
        return self._base.list_objects(kind, type)
