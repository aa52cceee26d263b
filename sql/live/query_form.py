"""Which queries can be live: columns and expressions of one table and a condition. All others are refused by name.

What the incremental engine will bring (joins, aggregates, order with LIMIT, subqueries) is UNSUPPORTED; what is no
query, or does not name its table in full, is INVALID_SQL. Every refusal points at the clause.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from sql.errors import InvalidSql, SqlError, Unsupported
from sql.lexer import tokenize
from sql.rewrite import function_name
from sql.scope import is_star, position
from sql.statements import Parsed, Query

_CLAUSES = {
    "with_": ("WITH", "with"),
    "joins": ("JOIN", "join"),
    "group": ("GROUP BY", "group"),
    "having": ("HAVING", "having"),
    "distinct": ("DISTINCT", "distinct"),
    "order": ("ORDER BY", "order"),
    "limit": ("LIMIT", "limit"),
    "offset": ("OFFSET", "offset"),
    "qualify": ("QUALIFY", "qualify"),
    "windows": ("WINDOW", "window"),
    "sample": ("USING SAMPLE", "using"),
    "laterals": ("LATERAL", "lateral"),
}
_PLAIN = frozenset(("expressions", "from_", "where"))
_AGGREGATE_NAMES = """
    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last
    arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bitstring_agg bool_and
    bool_or corr count count_if count_star countif covar_pop covar_samp decimal_average entropy favg first fsum
    geomean geometric_mean group_concat grouping grouping_id histogram json_group_array json_group_object
    json_group_structure kahan_sum kurtosis kurtosis_pop last list listagg mad max max_by mean median min min_by mode
    product quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev stddev_pop stddev_samp string_agg sum
    sum_no_overflow sumkahan var_pop var_samp variance wavg weighted_avg
    """
AGGREGATES = frozenset(_AGGREGATE_NAMES.split())
VOLATILE = frozenset((
    "gen_random_uuid", "rand", "random", "snowflake_id", "ulid", "uuid", "uuid_v7", "uuidv4", "uuidv7",
))  # fmt: skip
"""Functions that have another value at each call."""
SEVERAL = frozenset(("explode", "generate_subscripts", "regexp_split_to_table", "unnest"))


def live_select(batch: list[Parsed]) -> exp.Select:
    """The one SELECT of a subscription's text; raises InvalidSql or Unsupported for everything else."""
    if len(batch) != 1:
        second = batch[1]
        raise InvalidSql(
            f"A live query is one SELECT; the text has {len(batch)} statements.",
            line=second.line,
            column=second.column,
        )
    statement = batch[0].statement
    if not isinstance(statement, Query):
        raise InvalidSql("A live query is a SELECT … FROM namespace.table [WHERE …].", line=1, column=1)
    refusal = next(_refusals(statement.ast, batch[0].text), None)
    if refusal is not None:
        raise refusal
    assert isinstance(statement.ast, exp.Select)
    return statement.ast


def _refusals(tree: exp.Query, text: str) -> Iterator[SqlError]:
    """What keeps a query from being live, the outermost first."""
    if not isinstance(tree, exp.Select):
        word = tree.key.upper() if isinstance(tree, exp.SetOperation) else "this form of query"
        yield _unsupported(word, tree, text, word.lower())
        return
    for key, (name, word) in _CLAUSES.items():
        clause = tree.args.get(key)
        if clause:
            node = clause[0] if isinstance(clause, list) else clause
            yield _unsupported(name, node, text, "," if key == "joins" and not _is_written_join(node) else word)
    yield from _source_refusals(tree, text)
    for key, clause in tree.args.items():
        if clause and key not in _PLAIN and key not in _CLAUSES and key not in {"kind", "hint"}:
            yield _unsupported(f"the clause {key.upper()}", tree, text, key)
    yield from _expression_refusals(tree, text)


def _source_refusals(tree: exp.Select, text: str) -> Iterator[SqlError]:
    from_ = tree.args.get("from_")
    source = from_.this if isinstance(from_, exp.From) else None
    if source is None:
        yield InvalidSql("A live query needs FROM namespace.table.", line=1, column=1)
    elif isinstance(source, (exp.Subquery, exp.Values)):
        yield _unsupported("a subquery", source, text, "from")
    elif not isinstance(source, exp.Table) or not isinstance(source.this, exp.Identifier):
        yield _unsupported("a table function", source, text, "from")
    elif source.args.get("joins"):
        yield _unsupported("JOIN", source.args["joins"][0], text, "join")
    elif source.args.get("sample"):
        yield _unsupported("TABLESAMPLE", source, text, "tablesample")
    elif isinstance(source.args.get("alias"), exp.TableAlias) and source.args["alias"].columns:
        yield _unsupported("naming a table's columns anew", source, text, "from")
    elif not source.db:
        line, column = position(source)
        yield InvalidSql("Query must use namespace.table format", line=line, column=column)


def _expression_refusals(tree: exp.Select, text: str) -> Iterator[SqlError]:
    for node in tree.walk():
        if node is tree:
            continue
        if isinstance(node, exp.Query):
            yield _unsupported("a subquery", node, text, "")
        elif isinstance(node, exp.Window):
            yield _unsupported("a window function", node, text, "over")
        elif isinstance(node, exp.Columns) or (is_star(node) and not isinstance(node.parent, (exp.Select, exp.Column))):
            if not isinstance(node.parent, exp.Count):
                yield _unsupported("COLUMNS(…)", node, text, "columns")
        elif isinstance(node, exp.Func):
            name = function_name(node)
            if name in AGGREGATES or isinstance(node, exp.AggFunc):
                yield _unsupported(f"the aggregate {name.upper()}()", node, text, name)
            elif name in SEVERAL or isinstance(node, (exp.Unnest, exp.Explode)):
                yield _unsupported("UNNEST, which makes several rows of one,", node, text, "unnest")
            elif name in VOLATILE:
                yield volatile(name, node, text)


def volatile(name: str, node: exp.Expr | None, text: str) -> Unsupported:
    """The error for a function whose value differs from call to call."""
    line, column = _place(node, text, name)
    return Unsupported(
        f"{name.upper()}() is not supported in a live query: it has another value each time.", line=line, column=column
    )


def _unsupported(what: str, node: exp.Expr, text: str, word: str) -> Unsupported:
    line, column = _place(node, text, word)
    shown = what[0].upper() + what[1:]
    return Unsupported(
        f"{shown} is not supported in a live query yet: it shows columns of one table, with a WHERE clause or without.",
        line=line,
        column=column,
    )


def _is_written_join(node: exp.Expr) -> bool:
    return any(node.args.get(key) for key in ("kind", "side", "method", "on", "using"))


def _place(node: exp.Expr | None, text: str, word: str) -> tuple[int | None, int | None]:
    """Where the word of a clause first stands in the text; else where the node begins."""
    if word:
        for token in tokenize(text):
            if token.text.partition(" ")[0] == word and text[token.start] not in "'\"`":
                return token.line, token.col
    return position(node) if node is not None else (None, None)
