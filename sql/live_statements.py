"""SUBSCRIBE TO, KILL LIVE QUERY and system.live: live queries as SQL sees them.

SUBSCRIBE TO subscribes nobody: it checks the query as a subscription would be checked and answers with what the client
has to send, and where. Its rows come over a WebSocket, which a request has not.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import pyarrow as pa

from sql.errors import ExecutionError, InvalidSql, SqlError, Unsupported
from sql.identity import Identity
from sql.results import ResultColumn, StatementResult
from sql.statements import KillLiveQuery, SubscribeTo
from sql.system_rows import NODE_ID
from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.types import BIGINT, TEXT, TIMESTAMP
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.live.settings import LiveSettings
    from sql.live.subscription import Subscription
    from sql.services import Services, StatementContext

_MESSAGE = "WebSocket subscription created. Connect to ws_url to receive updates."
_COLUMNS = tuple(ResultColumn(name, TEXT, ("nn",)) for name in ("status", "ws_url", "subscription", "message"))
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_OPTIONS = {"last_rows": "last_rows", "batch_size": "batch_size", "from": "from", "from_seq_id": "from"}


class LiveQueries(Protocol):
    """What statements need of `sql.live.hub.LiveHub`; safe from any thread."""

    @property
    def settings(self) -> LiveSettings:
        """Bounds."""
        ...

    def subscriptions(self) -> Sequence[Subscription]:
        """All live queries."""
        ...

    def kill(self, live_id: str) -> bool:
        """End one; False if there is none of that name."""
        ...


class LiveQueryNotFound(SqlError):
    """No live query of that id, or none that the caller may end."""

    code = "LIVE_QUERY_NOT_FOUND"
    status = 404


# --- SUBSCRIBE TO -----------------------------------------------------------------------------------------------------


class _Subscription(msgspec.Struct, omit_defaults=True):
    """The `subscription` of the message that the client sends."""

    id: str
    sql: str
    options: dict[str, int]
    params: Sequence[object] = ()


def subscribe_to(
    statement: SubscribeTo, view: ReadView, context: StatementContext, services: Services
) -> StatementResult:
    """Check a live query and answer with the subscription to send; raises SqlError as subscribing would."""
    from sql.live.binding import bind_live

    options = _checked(statement, services)
    text = statement.text if statement.table is None else _select_all(statement, context.namespace)
    try:
        query = bind_live(text, context.params, context.namespace, context.identity, services, view)
    except SqlError as error:
        raise _moved(error, statement) from None
    table = next((t for t in view.catalog.tables() if t.table_id == query.table_id), None)
    names = (table.namespace, table.name) if table is not None else _names(statement, context.namespace)
    subscription = _Subscription(
        id=f"sub-{names[0]}-{names[1]}-{uuid.uuid4().hex}",
        sql=text,
        options=options,
        params=tuple(context.params),
    )
    row = ("active", context.ws_url, msgspec.json.encode(subscription).decode(), _MESSAGE)
    columns = [pa.array([value], pa.string()) for value in row]
    return StatementResult(_COLUMNS, pa.table(columns, names=[column.name for column in _COLUMNS]), 1)


def _select_all(statement: SubscribeTo, namespace: str) -> str:
    """`t WHERE …` as a query, the table's namespace written out."""
    if statement.table is None or statement.table.namespace is not None:
        return f"SELECT * FROM {statement.text}"  # noqa: S608  the caller's own text, bound like any other
    shown = namespace if _PLAIN_NAME.fullmatch(namespace) else '"{}"'.format(namespace.replace('"', '""'))
    return f"SELECT * FROM {shown}.{statement.text}"  # noqa: S608  the caller's own text, bound like any other


def _names(statement: SubscribeTo, namespace: str) -> tuple[str, str]:
    """Namespace and name for the id of a subscription to a system table."""
    if statement.table is not None:
        return statement.table.namespace or namespace, statement.table.name
    return SYSTEM, "query"


def _checked(statement: SubscribeTo, services: Services) -> dict[str, int]:
    """The options by their names in the protocol."""
    found: dict[str, int] = {}
    for written, value in statement.options.items():
        name = _OPTIONS.get(written.lower())
        if name is None:
            raise _at(statement, f"'{written}' is not an option of SUBSCRIBE TO: last_rows, batch_size, from.")
        if type(value) is not int or value < (name == "batch_size"):
            raise _at(statement, f"The option {written} must be a whole number, not {value!r}.")
        if name in found:
            raise _at(statement, f"The option {name} is given twice.")
        found[name] = value
    settings = services.live.settings
    size = found.get("batch_size", settings.batch_size)
    if size > settings.max_batch_size:
        raise _at(statement, f"batch_size may not be larger than {settings.max_batch_size}.")
    if "from" not in found and found.get("last_rows", 0) > size:
        raise Unsupported(
            f"last_rows ({found['last_rows']}) may not be larger than batch_size ({size}): it comes as one batch.",
            line=statement.line,
            column=statement.column,
        )
    return found


def _at(statement: SubscribeTo, message: str) -> InvalidSql:
    return InvalidSql(message, line=statement.line, column=statement.column)


def _moved(error: SqlError, statement: SubscribeTo) -> SqlError:
    """An error about the query's text, with its place in the text of the request."""
    error.excerpt = None
    if error.line is None or error.column is None or statement.table is not None:
        error.line, error.column = statement.line, statement.column
        return error
    if error.line == 1:
        error.column += statement.column - 1
    error.line += statement.line - 1
    return error


# --- KILL LIVE QUERY --------------------------------------------------------------------------------------------------


def kill_live_query(statement: KillLiveQuery, identity: Identity, live: LiveQueries) -> StatementResult:
    """End a live query: one's own, or, for admins, anybody's. Raises LiveQueryNotFound."""
    owner = next((s.request.identity.user for s in live.subscriptions() if s.live_id == statement.live_id), None)
    if owner is None or not (identity.role.is_admin or owner == identity.user) or not live.kill(statement.live_id):
        raise LiveQueryNotFound(f"There is no live query '{statement.live_id}'")
    return StatementResult(message=f"Live query killed: {statement.live_id}")


class NoLiveQueries:
    """Stands where nobody serves live queries."""

    def __init__(self, settings: LiveSettings) -> None:
        self.settings = settings

    def subscriptions(self) -> Sequence[Subscription]:
        """None."""
        return ()

    def kill(self, live_id: str) -> bool:
        """There is none."""
        raise ExecutionError("Live queries are not served here")


# --- system.live ------------------------------------------------------------------------------------------------------

_LIVE_COLUMNS = (
    SystemColumn("live_id", TEXT, nullable=False),
    SystemColumn("connection_id", TEXT, nullable=False),
    SystemColumn("subscription_id", TEXT, nullable=False),
    SystemColumn("namespace_id", TEXT),
    SystemColumn("table_name", TEXT),
    SystemColumn("user_id", TEXT, nullable=False),
    SystemColumn("query", TEXT, nullable=False),
    SystemColumn("options", TEXT),
    SystemColumn("status", TEXT, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("last_update", TIMESTAMP),
    SystemColumn("changes", BIGINT, nullable=False),
    SystemColumn("node_id", BIGINT, nullable=False),
    SystemColumn("last_ping_at", TIMESTAMP),
)


def _live_rows(view: ReadView, context: SystemContext) -> Rows:
    return sorted(_live_row_of(view, context))


def _live_row_of(view: ReadView, context: SystemContext) -> Iterator[tuple[object, ...]]:
    tables = {table.table_id: table for table in view.catalog.tables()}
    for subscription in context.live():
        request = subscription.request
        table_id = subscription.query.table_id
        table = None if table_id is None else tables.get(table_id)
        options = request.options
        yield (
            subscription.live_id,
            subscription.connection_id,
            subscription.subscription_id,
            None if table is None else table.namespace,
            None if table is None else table.name,
            request.identity.user,
            request.sql,
            None if options is None else msgspec.json.encode(_wire_options(options)).decode(),
            subscription.state.value,
            subscription.created_us,
            subscription.updated_us,
            subscription.changes,
            NODE_ID,
            context.last_heard(subscription.connection_id),
        )


def _wire_options(options: msgspec.Struct) -> dict[str, object]:
    """The options that are set, by their names in the protocol."""
    return {name.rstrip("_"): value for name, value in msgspec.structs.asdict(options).items() if value is not None}


LIVE_TABLE = SystemTable(SYSTEM, "live", _LIVE_COLUMNS, _live_rows, key=("live_id",))
