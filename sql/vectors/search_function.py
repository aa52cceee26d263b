"""vector_search('ns.t', 'column', vector [, top_k]) in FROM: the nearest rows of a table, as row_id and score.

`row_id` names a row by its primary key as text, so that it can be joined: the key's own text, a JSON array of such
texts where it has several columns, the `_seq` where there is none. `score` is the distance of the index's metric, less
is nearer (Cosine where the column has no index); rows come nearest first. The table and the column are literals,
because the rights of the caller are decided when the query is bound; vector and top_k may be parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sql.errors import InvalidInput, InvalidParameter
from sql.identity import Identity
from sql.plain import parameter_index, plain_value
from sql.plan import SEQ, Constant, Operand, ParameterRef, VectorSearch
from sql.rewrite import function_name
from sql.rights import partition_of, resolve_table
from sql.scope import invalid, position
from sql.system_tables import SystemColumn, SystemTable
from sql.values import converter
from sql.vectors.functions import literal_vector
from sql.vectors.indexes import VectorIndexes
from sql.views.errors import of_view
from storage.catalog import TableDef
from storage.types import FLOAT, TEXT, Kind, arrow_type
from storage.vector_definitions import VectorMetric
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.binder import BindContext

NAME: Final = "vector_search"
RESULT: Final = SystemTable(
    "",
    NAME,
    (SystemColumn("row_id", TEXT, nullable=False), SystemColumn("score", FLOAT, nullable=False)),
    lambda view, context: (),
    admin_only=False,
)
"""The columns of the function's rows. A scan of it reads `search_rows`."""
DEFAULT_TOP_K: Final = 10
MOST_TOP_K: Final = 10_000

_USAGE = "vector_search('namespace.table', 'column', '[…]' [, top_k])"
_LARGEST = float(np.finfo(np.float32).max)


def place_searches(tree: exp.Expr, context: BindContext) -> dict[int, VectorSearch]:
    """Put a name in the place of each vector_search(…) in FROM; the searches by the identity of their node.

    Raises TableNotFound and PermissionDenied as for a table in FROM, and InvalidSql for other arguments.
    """
    found = {}
    for call in [node for node in tree.find_all(exp.Func) if function_name(node) == NAME]:
        table = call.parent
        if not isinstance(table, exp.Table) or table.this is not call:
            raise invalid(f"vector_search is a table and stands in FROM: {_USAGE}.", call)
        with of_view(table):
            found[id(table)] = _bound(call, context)
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(NAME)))
        table.set("this", exp.to_identifier(f"__hr_{NAME}"))
    return found


def _bound(call: exp.Func, context: BindContext) -> VectorSearch:
    arguments = call.expressions if isinstance(call, exp.Anonymous) else [a for a in call.args.values() if a]
    if not 3 <= len(arguments) <= 4 or not all(isinstance(argument, exp.Expr) for argument in arguments):
        raise invalid(f"vector_search takes three or four arguments: {_USAGE}.", call)
    name, column = (plain_value(argument) for argument in arguments[:2])
    if not isinstance(name, str) or not isinstance(column, str):
        raise invalid(f"The table and the column of vector_search are texts: {_USAGE}.", call)
    namespace, dot, table_name = name.rpartition(".")
    line, place = position(arguments[0])
    space, table_name = namespace.lower() if dot else context.namespace, table_name.lower()
    table = resolve_table(context.catalog, context.system, context.role, space, table_name, line=line, column=place)
    known = table.by_name.get(column.lower()) if isinstance(table, TableDef) else None
    if not isinstance(table, TableDef) or known is None:
        raise invalid(f"Column not found: '{column}' in {table.full_name}", arguments[1])
    if known.type.kind is not Kind.EMBEDDING:
        raise invalid(f"Column '{known.name}' of {table.full_name} is {known.type}, not an EMBEDDING.", arguments[1])
    index = table.vector_index(known.name)
    metric = VectorMetric.COSINE if index is None else index.metric
    vector = _vector(arguments[2], known.type.dimension)
    return VectorSearch(table, known.name, metric, vector, _top_k(arguments[3:]))


def _vector(node: exp.Expr, dimension: int) -> Operand:
    index = parameter_index(node)
    if index is not None:
        return ParameterRef(index)
    if isinstance(node, exp.Null):
        return Constant(None)
    literal = literal_vector(node)
    if literal is None:
        raise invalid(f"The embedding of vector_search is a literal or a parameter: {_USAGE}.", node)
    if len(literal) != dimension:
        raise invalid(f"vector_search compares with embeddings of {dimension} dimensions, not of {len(literal)}.", node)
    return Constant(literal)


def _top_k(nodes: Sequence[exp.Expr]) -> Operand:
    if not nodes:
        return Constant(DEFAULT_TOP_K)
    index = parameter_index(nodes[0])
    if index is not None:
        return ParameterRef(index)
    value = plain_value(nodes[0])
    if type(value) is not int or not 0 < value <= MOST_TOP_K:
        raise invalid(f"top_k of vector_search is a whole number from 1 to {MOST_TOP_K}.", nodes[0])
    return Constant(value)


def search_rows(
    search: VectorSearch, view: ReadView, identity: Identity, params: Sequence[object], vectors: VectorIndexes
) -> pa.Table:
    """The rows of a search in the caller's own partition; `params` are JSON values, `$1` first."""
    table = search.table
    kind = table.by_name[search.column].type
    vector = search.vector.value if isinstance(search.vector, Constant) else None
    if isinstance(search.vector, ParameterRef):
        vector = converter(kind, f"${search.vector.index}")(_parameter(search.vector, params))
    count = search.top_k.value if isinstance(search.top_k, Constant) else _parameter(search.top_k, params)
    if type(count) is not int or not 0 < count <= MOST_TOP_K:
        raise InvalidInput(f"top_k of vector_search is a whole number from 1 to {MOST_TOP_K}.")
    types = [arrow_type(column.type) for column in RESULT.columns]
    if vector is None:
        return pa.table([pa.array([], kind) for kind in types], names=["row_id", "score"])
    partition = partition_of(table, identity)
    query = np.asarray(vector, dtype=np.float64)
    found = vectors.search(view, table, partition, search.column, search.metric, query, count)
    scores = found.distances.clip(-_LARGEST, _LARGEST).astype(np.float32)
    keys = [column.name for column in table.key_columns]
    rows = view.fetch(table, partition, found.seqs.tolist(), keys or [search.column], with_seq=True)
    return pa.table([_row_ids(rows.select(keys or [SEQ]), table), pa.array(scores)], names=["row_id", "score"])


def _parameter(reference: ParameterRef, params: Sequence[object]) -> object:
    if reference.index > len(params):
        raise InvalidParameter(f"Parameter ${reference.index} is missing: the request has {len(params)} parameter(s).")
    return params[reference.index - 1]


def _row_ids(keys: pa.Table, table: TableDef) -> pa.Array:
    texts = [_text(keys.column(name).combine_chunks(), table, name) for name in keys.column_names]
    if len(texts) == 1:
        return texts[0]
    rows = zip(*(text.to_pylist() for text in texts), strict=True)
    return pa.array([msgspec.json.encode(row).decode() for row in rows], pa.string())


def _text(column: pa.Array, table: TableDef, name: str) -> pa.Array:
    """A key column as text that SQL casts back to its value."""
    kind = Kind.BIGINT if name == SEQ else table.by_name[name].type.kind
    if kind is Kind.UUID:
        return pa.array([_uuid(value) for value in column.to_pylist()], pa.string())
    if kind is Kind.BYTES:
        return pa.array([f"\\x{value.hex()}" for value in column.to_pylist()], pa.string())
    if kind is Kind.DATETIME:
        return pc.binary_join_element_wise(pc.cast(column.cast(pa.timestamp("us")), pa.string()), "+00", "")
    return pc.cast(column, pa.string())


def _uuid(value: bytes) -> str:
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
