"""From the text of a subscription to a live query: the plan for its shape, cached, and the values of its arguments.

Texts of one shape share a plan: literals of `column = literal` comparisons are lifted out (`sql.templates`), so that
a hundred thousand queries `… WHERE chat = 17` are one plan and a hundred thousand small objects. A literal that does
not fit the type that a parameter in its place would have stays where it is: then the text is a shape of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from sql.diagnostics import shown_in
from sql.errors import InvalidParameter, SqlError
from sql.identity import Identity
from sql.live.interface import LiveQuery
from sql.live.live_plan import LivePlan, plan_live
from sql.live.query_form import live_select
from sql.live.system_query import SystemQuery
from sql.live.table_query import TableQuery
from sql.parameters import json_kind
from sql.request import parse_request
from sql.services import Services, StatementContext
from sql.storage_errors import storage_errors
from sql.system_tables import SYSTEM_NAMESPACES
from sql.templates import lift_literals
from sql.views.errors import blaming_views
from sql.views.simple import over_table
from sql.workers import Control
from storage.views import ReadView

LONGEST_LIFTED = 64 * 1024
"""Characters up to which a text's literals are lifted."""


class _Request(NamedTuple):
    """What is bound: a text with its arguments, for a caller."""

    sql: str
    params: tuple[object, ...]
    namespace: str
    identity: Identity
    now_us: int


class _Shape(NamedTuple):
    """A text with its literals lifted out, all arguments, and what its plan is cached by."""

    text: str
    arguments: tuple[object, ...]
    key: tuple[Hashable, ...]


def bind_live(
    sql: str, params: Sequence[object], namespace: str, identity: Identity, services: Services, view: ReadView
) -> LiveQuery:
    """The live query of a text. Parses, and may ask DuckDB for types: call it on a worker thread.

    `params` are JSON values, `$1` first. Raises InvalidSql, Unsupported, InvalidParameter, TableNotFound,
    PermissionDenied and the errors of `sql.dialect`, with line and column in `sql`.
    """
    request = _Request(sql, tuple(params), namespace, identity, services.functions.now_us())
    with shown_in(sql), storage_errors():
        return _bind(request, services, view)


def bind_cached(
    sql: str, params: Sequence[object], namespace: str, identity: Identity, services: Services, view: ReadView
) -> LiveQuery | None:
    """The live query when its shape is planned already, for the event loop; None: ask `bind_live` elsewhere."""
    request = _Request(sql, tuple(params), namespace, identity, services.functions.now_us())
    for shape in (_lifted(request), _whole(request)):
        if shape is not None:
            found = _cached(shape, request, services, view)
            if found is not None:
                return found
    return None


def rebind(query: LiveQuery, view: ReadView) -> LiveQuery:
    """The same query after the catalog changed: same text, arguments, start time and identity. As `bind_live`."""
    assert isinstance(query, (TableQuery, SystemQuery))
    request = _Request(query.sql, query.params, query.namespace, query.identity, query.now_us)
    with shown_in(query.sql), storage_errors():
        return _bind(request, query.services, view)


def _bind(request: _Request, services: Services, view: ReadView) -> LiveQuery:
    lifted = _lifted(request)
    if lifted is not None:
        found = _cached(lifted, request, services, view)
        if found is not None:
            return found
        try:
            # Only the original text has its say about what is wrong with it.
            plan = _planned(lifted, request, services, view)
            if isinstance(plan, LivePlan):
                return _query(plan, lifted, request, services)
        except SqlError:
            pass
    whole = _whole(request)
    found = _cached(whole, request, services, view)
    if found is not None:
        return found
    made = _planned(whole, request, services, view)
    return _query(made, whole, request, services) if isinstance(made, LivePlan) else made


def _lifted(request: _Request) -> _Shape | None:
    if len(request.sql) > LONGEST_LIFTED:
        return None
    found = lift_literals(request.sql)
    if found is None:
        return None
    text, values = found
    kinds = tuple(map(json_kind, request.params))
    return _Shape(text, (*request.params, *values), (text, *_scope(request), kinds, *map(type, values)))


def _whole(request: _Request) -> _Shape:
    kinds = tuple(map(json_kind, request.params))
    return _Shape(request.sql, request.params, (request.sql, *_scope(request), kinds))


def _scope(request: _Request) -> tuple[Hashable, ...]:
    return request.namespace, request.identity.role


def _cached(shape: _Shape, request: _Request, services: Services, view: ReadView) -> TableQuery | None:
    plan = services.live_plans.get(shape.key, view.catalog.version)
    if plan is None:
        return None
    try:
        return _query(plan, shape, request, services)
    except InvalidParameter:
        if shape.text == request.sql:
            raise
        return None  # a literal that does not fit its column: the text as it is says what that means


def _query(plan: LivePlan, shape: _Shape, request: _Request, services: Services) -> TableQuery:
    return TableQuery(
        plan,
        services,
        request.sql,
        request.params,
        shape.arguments,
        request.namespace,
        request.identity,
        request.now_us,
    )


def _planned(shape: _Shape, request: _Request, services: Services, view: ReadView) -> LivePlan | SystemQuery:
    """The plan of a shape, kept from now on; of a system table the query itself."""
    batch = parse_request(shape.text, len(shape.arguments), max_statements=services.limits.max_statements)
    ast = live_select(batch)
    kinds = tuple(map(json_kind, shape.arguments))
    context = StatementContext(
        request.identity, request.namespace, shape.arguments, Control(services.limits.statement_timeout), kinds
    )
    binding = services.binding(view, context)
    source = ast.args["from_"].this
    if source.db in SYSTEM_NAMESPACES:
        return SystemQuery(ast, binding, services, request.sql, request.params, request.identity, request.now_us, view)
    merged, views = over_table(ast, binding, "a live query")
    with blaming_views(views, binding.check_view):
        plan = plan_live(merged, binding, (shape.text, *shape.key[3:]), services.bigint, views)
    services.live_plans.put(shape.key, view.catalog.version, plan)
    return plan
