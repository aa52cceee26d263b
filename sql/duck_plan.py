"""Plans for DuckDB: its text over our scans, checked by the guard, typed by DuckDB's own binder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import duckdb
import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import UnsupportedError

from sql import guard
from sql.duck import PREPARE, DuckPool, DuckSession
from sql.duck_api import Signature
from sql.duck_errors import translate
from sql.duck_types import duck_arrow_type, output_cast, parameter_type, result_type
from sql.errors import InvalidParameter, SqlError, Unsupported
from sql.generate import ParameterTypes, Positions, generate, quote_and_mark
from sql.index_access import scan_indexes
from sql.ordering import default_order, write_order
from sql.outputs import origins, result_columns, sources
from sql.plain import parameter_index
from sql.plan import (
    DELETED,
    HIDDEN_COLUMNS,
    SEQ,
    ColumnRange,
    Constant,
    IndexAccess,
    JsonKind,
    KeyAccess,
    Parameter,
    Path,
    QueryPlan,
    Scan,
    Source,
)
from sql.postgres_macros import MACROS
from sql.pruning import column_ranges
from sql.pushdown import key_access, key_terms
from sql.rewrite import PRIVATE_FUNCTIONS, HiddenParameters, function_name, point_at_scans
from sql.scope import TableUse, hide_from_stars, position, renames_columns
from sql.syntax import copied
from sql.vectors.functions import embedding_parameters
from storage.types import BIGINT, BOOLEAN, DOUBLE, JSON, TEXT, TIMESTAMP, ColumnType

_KIND_TYPES: dict[JsonKind, ColumnType] = {
    JsonKind.NULL: TEXT,
    JsonKind.BOOLEAN: BOOLEAN,
    JsonKind.INTEGER: BIGINT,
    JsonKind.NUMBER: DOUBLE,
    JsonKind.STRING: TEXT,
    JsonKind.ARRAY: JSON,
    JsonKind.OBJECT: JSON,
}
HIDDEN_TYPES = {Source.NOW: TIMESTAMP, Source.USER: TEXT, Source.ROLE: TEXT}
_PUSHABLE_KINDS = frozenset(("", "INNER", "OUTER", "CROSS", "SEMI", "ANTI"))


def plan_for_duckdb(
    tree: exp.Expr,
    uses: list[TableUse],
    hidden: HiddenParameters,
    pool: DuckPool,
    kinds: Sequence[JsonKind],
    *,
    volatile: bool,
) -> QueryPlan:
    """The plan of a query whose tables are resolved and whose functions are rewritten. The tree is used up."""
    order = default_order(tree, uses)
    found = origins(tree, uses)
    if order is not None and order.written:
        write_order(tree, order)
    hide_from_stars(uses)
    point_at_scans(uses)
    scans = [use.scan() for use in uses]
    engine = _Engine(tree, scans)
    types: ParameterTypes = {index: (HIDDEN_TYPES[source], False) for source, index in hidden.indexes.items()}
    types |= _any_lists(tree, uses)
    types |= embedding_parameters(tree)
    with pool.planning({scan.name: empty_scan(scan) for scan in scans}) as session:
        signature, kinds_matter, called = engine.sign(session, types, kinds)
        text, positions = engine.final(signature)
    columns = result_columns(tree, found, signature.names, [result_type(kind) for kind in signature.types])
    by_source = {index: source for source, index in hidden.indexes.items()}
    for place, use in enumerate(uses):
        scans[place] = replace(
            scans[place], ordered=order is not None and use is order.use, **_accesses(use, uses, types)
        )  # fmt: skip
    return QueryPlan(
        columns=columns,
        scans=tuple(scans),
        parameters=tuple(
            Parameter(index, kind, is_list, by_source.get(index, Source.REQUEST))
            for index, (kind, is_list) in sorted(types.items())
        ),
        path=Path.DUCKDB,
        sql=text,
        duck_types=signature.types,
        positions=positions,
        kinds_matter=kinds_matter,
        volatile=volatile or called,
    )


def empty_scan(scan: Scan) -> pa.Table:
    """A scan without rows, for typing."""
    return pa.schema([pa.field(name, duck_arrow_type(kind)) for name, kind in scan_types(scan).items()]).empty_table()


def scan_types(scan: Scan) -> dict[str, ColumnType]:
    """The types of a scan's columns, in its order."""
    hidden = {SEQ: BIGINT, DELETED: BOOLEAN}
    target = scan.table if scan.table is not None else scan.system
    assert target is not None
    types = {column.name: column.type for column in target.columns}
    return {name: types.get(name) or hidden[name] for name in scan.columns}


class _Engine:
    """A marked copy of the tree and what DuckDB says about it."""

    def __init__(self, tree: exp.Expr, scans: Sequence[Scan]) -> None:
        self._tree = copied(tree)
        self._marked = quote_and_mark(self._tree)
        self._scans = {scan.name: scan.alias for scan in scans}
        self._columns = sorted({name for scan in scans for name in _known_columns(scan)})
        self._names = frozenset(self._columns) | {
            alias.alias.lower() for alias in tree.find_all(exp.Alias, exp.TableAlias)
        }
        self._latest: tuple[str, Positions] = ("", ())
        self._places = {
            function_name(node): position(node) for node in reversed(list(tree.find_all(exp.Func, bfs=False)))
        }

    def sign(
        self, session: DuckSession, types: ParameterTypes, kinds: Sequence[JsonKind]
    ) -> tuple[Signature, bool, bool]:
        """The signature with every parameter typed (into `types`).

        Also tells whether JSON kinds decided a type, and whether volatile functions are called.
        """
        text, positions = self._generate(types)
        try:
            called = guard.check(
                session.serialize, text, positions, self._scans, PRIVATE_FUNCTIONS | MACROS, self._names, self._places
            )  # fmt: skip
        except duckdb.Error as error:
            raise self._error(error, positions) from None
        signature = self._bind(session, text, positions)
        kinds_matter = False
        asked = {parameter_index(node) or 0 for node in self._tree.find_all(exp.Placeholder)} - types.keys()
        if not asked:
            return self._known(session, signature, types), kinds_matter, called
        for index in sorted(asked):
            known = parameter_type(signature.parameters.get(index, "UNKNOWN"))
            if known is None:
                kinds_matter = True
                if index > len(kinds):
                    raise InvalidParameter(f"Parameter ${index} is missing: the request has {len(kinds)}.")
                known = (_KIND_TYPES[kinds[index - 1]], False)
            types[index] = known
        text, positions = self._generate(types)
        return self._known(session, self._bind(session, text, positions), types), kinds_matter, called

    def _known(self, session: DuckSession, signature: Signature, types: ParameterTypes) -> Signature:
        """The signature with its outputs: DuckDB puts off binding a table function whose argument is a parameter."""
        if signature.types:
            return signature
        text, positions = generate(self._tree, types, marked=self._marked, as_nulls=True)
        return self._bind(session, text, positions)

    def final(self, signature: Signature) -> tuple[str, Positions]:
        """The text to run: with outputs brought to types that we have. `sign` comes first."""
        text, positions = self._latest
        casts = [output_cast(kind) for kind in signature.types]
        if not any(casts):
            return text, positions
        names = [f"c{place}" for place in range(len(casts))]
        outputs = ", ".join(cast.format(name) if cast else name for cast, name in zip(casts, names, strict=True))
        prefix = f"SELECT {outputs} FROM ("  # noqa: S608 - our own text, checked by the guard before
        return f"{prefix}{text}) AS __out({', '.join(names)})", tuple(
            (offset + len(prefix), line, column) for offset, line, column in positions
        )

    def _generate(self, types: ParameterTypes) -> tuple[str, Positions]:
        try:
            self._latest = generate(self._tree, types, marked=self._marked)
        except (ValueError, NotImplementedError) as error:
            raise Unsupported(f"This form of query is not supported: {error}") from None
        except UnsupportedError as error:
            first = str(error).partition("\n")[0]
            raise Unsupported(f"This form of query is not supported: {first}") from None
        return self._latest

    def _bind(self, session: DuckSession, text: str, positions: Positions) -> Signature:
        try:
            return session.bind(text)
        except duckdb.Error as error:
            try:
                session.prepare(text)
            except duckdb.Error as detailed:
                raise self._error(detailed, positions, len(PREPARE)) from None
            raise self._error(error, positions) from None

    def _error(self, error: duckdb.Error, positions: Positions, shift: int = 0) -> SqlError:
        return translate(error, positions, columns=self._columns, scans=self._scans, shift=shift, places=self._places)


def _known_columns(scan: Scan) -> list[str]:
    target = scan.table if scan.table is not None else scan.system
    return [column.name for column in target.columns] + list(HIDDEN_COLUMNS) if target is not None else []


def _any_lists(tree: exp.Expr, uses: Sequence[TableUse]) -> ParameterTypes:
    """`column = ANY($n)`, `<> ALL($n)`: a list of the column's type (of texts where it is not one of a table)."""
    found: ParameterTypes = {}
    for node in tree.find_all(exp.Any, exp.Anonymous):
        if isinstance(node, exp.Any):
            index = parameter_index(node.this)
        elif node.name.lower() == "all" and len(node.expressions) == 1:
            index = parameter_index(node.expressions[0])
        else:
            continue
        comparison = node.parent
        if index is None or not isinstance(comparison, exp.Binary):
            continue
        other = comparison.this if comparison.expression is node else comparison.expression
        owners = [
            kind
            for use in uses
            if isinstance(other, exp.Column) and (not other.table or other.table.lower() == use.alias)
            and (kind := use.type_of(other.name.lower())) is not None
        ]  # fmt: skip
        found[index] = (owners[0] if len(set(owners)) == 1 else TEXT, True)
    return found


class _Accesses(TypedDict):
    key: KeyAccess | None
    indexes: tuple[IndexAccess, ...]
    ranges: tuple[ColumnRange, ...]


def _accesses(use: TableUse, uses: Sequence[TableUse], types: Mapping[int, tuple[ColumnType, bool]]) -> _Accesses:
    """The key and index accesses of one scan, and what WHERE says about its columns."""
    nothing = _Accesses(key=None, indexes=(), ranges=())
    select = use.select
    if select is None:
        return nothing
    siblings, alone = sources(select, uses)
    if use not in siblings or use.node.args.get("sample") or any(renames_columns(other.node) for other in siblings):
        return nothing
    for join in select.args.get("joins") or ():
        if join.method not in {"", "NATURAL"} or join.kind not in _PUSHABLE_KINDS:
            return nothing
    where = select.args.get("where")
    condition = where.this if where else None
    return _Accesses(
        key=key_access(use, key_terms(condition, use, siblings, types, alone=alone)),
        indexes=scan_indexes(condition, use, siblings, types, alone=alone)
        if not select.args.get("joins")
        else _never_null(scan_indexes(condition, use, siblings, types, alone=alone)),
        ranges=column_ranges(condition, use, siblings, types, alone=alone),
    )


def _never_null(accesses: tuple[IndexAccess, ...]) -> tuple[IndexAccess, ...]:
    """Without IS NULL, which an outer join makes true for rows that it has found no partner for."""
    null = Constant(None)
    return tuple(a for a in accesses if not any(null in choices for choices in a.equal))
