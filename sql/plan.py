"""What the binder hands to the executor: a query with every name resolved, as plain data.

A plan holds for one (text, namespace, role, catalog version) and, when `kinds_matter`, for one list of JSON
kinds of the parameters. It names no user: USER and STREAM tables are scanned in the partition of whoever runs it, and
CURRENT_USER is a hidden parameter. So every user of a role shares one cached plan.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sql.expressions import CompiledExpression
from sql.results import ResultColumn
from sql.system_tables import SystemTable
from storage.catalog import TableDef
from storage.types import ColumnType
from storage.vector_definitions import VectorMetric

SEQ = "_seq"
DELETED = "_deleted"
HIDDEN_COLUMNS = (SEQ, DELETED)
"""Columns that every table has and that only a query that names them sees."""


class JsonKind(enum.StrEnum):
    """What kind of JSON value a parameter is; types a parameter whose context says nothing."""

    NULL = "null"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    STRING = "string"
    ARRAY = "array"
    OBJECT = "object"


class Path(enum.StrEnum):
    """How a plan is executed."""

    POINT = "point read"
    NATIVE = "native scan"
    DUCKDB = "duckdb"


class Source(enum.Enum):
    """Where the value of a parameter comes from."""

    REQUEST = "request"
    NOW = "now"
    USER = "user"
    ROLE = "role"


@dataclass(frozen=True, slots=True)
class Parameter:
    """`$index` and its type. `is_list` means a list of such values (`x = ANY($1)`).

    The request's parameters come first, in order; hidden ones (NOW(), CURRENT_USER, ...) follow them.
    """

    index: int
    type: ColumnType
    is_list: bool = False
    source: Source = Source.REQUEST


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal, as a storage value of the column that it is compared with."""

    value: object


@dataclass(frozen=True, slots=True)
class ParameterRef:
    """The value of `$index`."""

    index: int


Operand = Constant | ParameterRef


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a key range."""

    operand: Operand
    inclusive: bool


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """What WHERE says about a table's primary key: equal on the first columns, then perhaps a range on the next.

    It narrows the scan only; the condition itself stays in the query.
    """

    prefix: tuple[Operand, ...]
    low: Bound | None = None
    high: Bound | None = None


@dataclass(frozen=True, slots=True)
class ColumnRange:
    """What a term of WHERE says about a column: not less than, not greater than, one of. It narrows the scan only."""

    column: str
    low: tuple[Operand, ...] = ()
    high: tuple[Operand, ...] = ()
    among: tuple[Operand, ...] = ()


@dataclass(frozen=True, slots=True)
class ListRef:
    """The values of `$index`, which is a list."""

    index: int


@dataclass(frozen=True, slots=True)
class IndexAccess:
    """What WHERE says about the columns of an index: each of the first ones is one of some values, then a range.

    Like a KeyAccess it narrows the scan only. `marked` keys have marks and NULLs (CREATE INDEX), others are those of a
    UNIQUE constraint.
    """

    index_id: int
    name: str
    columns: tuple[str, ...]
    equal: tuple[tuple[Operand | ListRef, ...], ...]
    low: Bound | None = None
    high: Bound | None = None
    marked: bool = True
    unique: bool = False


@dataclass(frozen=True, slots=True)
class IndexOrder:
    """An order of rows that an index has: by `columns`, behind those that `access` pins."""

    access: IndexAccess
    columns: tuple[str, ...]
    descending: bool


@dataclass(frozen=True, slots=True)
class Nearest:
    """ORDER BY the distance of a column to one embedding, and LIMIT: the rows that are needed are the nearest.

    `vector` is a list of as many numbers as the column has. With `filtered`, WHERE may leave out some of them.
    """

    column: str
    metric: VectorMetric
    vector: Operand
    limit: Operand
    offset: Operand | None
    filtered: bool
    plain: PlainNearest | None = None


@dataclass(frozen=True, slots=True)
class PlainNearest:
    """That the nearest rows need no DuckDB: the outputs are columns, and the condition (if any) is compiled.

    `parameters` are the types that the condition was compiled for, by index.
    """

    outputs: tuple[str, ...]
    condition: CompiledExpression | None
    parameters: Mapping[int, ColumnType]


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """`vector_search('ns.t', 'col', vector, top_k)` in FROM; the operands are JSON values of the request."""

    table: TableDef
    column: str
    metric: VectorMetric
    vector: Operand
    top_k: Operand


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading of one table. `columns` are needed, in the table's order, hidden ones last.

    `name` is the private name under which DuckDB sees it; `alias` is what the query calls it.
    `ordered` asks for the rows by primary key, then `_seq`. `nearest` tells that the nearest rows may do; `search`
    that the rows are found by a vector search.
    """

    name: str
    alias: str
    table: TableDef | None
    system: SystemTable | None
    columns: tuple[str, ...]
    key: KeyAccess | None = None
    ordered: bool = False
    ranges: tuple[ColumnRange, ...] = ()
    indexes: tuple[IndexAccess, ...] = ()
    """Secondary indexes that lead to its rows, the most promising first."""
    nearest: Nearest | None = None
    search: VectorSearch | None = None

    @property
    def own_partition(self) -> bool:
        """True when the scan reads the caller's partition only (USER and STREAM tables)."""
        return self.table is not None and self.table.per_user

    @property
    def full_name(self) -> str:
        """`namespace.name`."""
        return self.table.full_name if self.table is not None else self.system.full_name if self.system else ""


@dataclass(frozen=True, slots=True)
class NativePlan:
    """A query of one table that pyarrow answers: condition, the key's order, offset and limit, plain columns."""

    projection: tuple[str, ...]
    condition: CompiledExpression | None = None
    descending: bool = False
    limit: Operand | None = None
    offset: Operand | None = None
    counts: bool = False
    """`SELECT COUNT(*) FROM t`: the result is the number of rows."""
    order: IndexOrder | None = None
    """Another order than the key's, with a limit."""


@dataclass(frozen=True)
class QueryPlan:
    """A bound query. `sql` is DuckDB's text (empty until a native plan needs it), over the scans' private names.

    For the hot path: `point_key` has an operand for every primary key column when WHERE pins the whole key;
    `projection` the plain column names of the output, or None when an output is computed; `residual_filter`
    is true when WHERE holds more than the key.
    """

    columns: tuple[ResultColumn, ...]
    scans: tuple[Scan, ...]
    parameters: tuple[Parameter, ...]
    path: Path
    sql: str
    duck_types: tuple[str, ...] = ()
    positions: tuple[tuple[int, int, int], ...] = ()
    """(byte offset in `sql`, line, column), ascending, for error messages."""
    kinds_matter: bool = False
    native: NativePlan | None = None
    point_key: tuple[Operand, ...] | None = None
    projection: tuple[str, ...] | None = None
    residual_filter: bool = True
    exact_index: IndexAccess | None = None
    """The index whose entries for single values are exactly the rows that WHERE keeps."""
    volatile: bool = False
    """True when the same snapshot and parameters may give another answer (RANDOM(), SNOWFLAKE_ID(), ...)."""
    engine_plan: Callable[[], QueryPlan] | None = field(default=None, repr=False, compare=False)
    """Binds the same query for DuckDB, for a native plan that meets values which only DuckDB decides."""

    def for_duckdb(self) -> QueryPlan:
        """The plan of the same query on DuckDB's path."""
        return self if self.engine_plan is None else self.engine_plan()

    @property
    def request_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the request supplies."""
        return tuple(p for p in self.parameters if p.source is Source.REQUEST)

    @property
    def tables(self) -> tuple[TableDef, ...]:
        """The tables that the plan reads, each once."""
        return tuple({s.table.table_id: s.table for s in self.scans if s.table is not None}.values())
