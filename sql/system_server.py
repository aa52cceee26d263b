"""System tables over the running server: settings, figures, sessions, transactions, the log.

The server supplies what they show through SystemContext.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.types import BIGINT, BOOLEAN, INT, TEXT, TIMESTAMP
from storage.views import ReadView

SETTINGS_COLUMNS = tuple(
    SystemColumn(name, TEXT, nullable=False) for name in ("name", "value", "description", "category")
)
_STATS_COLUMNS = tuple(SystemColumn(name, TEXT, nullable=False) for name in ("metric_name", "metric_value"))
_SESSION_COLUMNS = (
    SystemColumn("session_id", TEXT, nullable=False),
    SystemColumn("backend_pid", BIGINT, nullable=False),
    SystemColumn("current_schema", TEXT),
    SystemColumn("state", TEXT, nullable=False),
    SystemColumn("transaction_id", TEXT),
    SystemColumn("transaction_state", TEXT),
    SystemColumn("transaction_has_writes", BOOLEAN, nullable=False),
    SystemColumn("client_addr", TEXT),
    SystemColumn("transport", TEXT, nullable=False),
    SystemColumn("opened_at", TIMESTAMP, nullable=False),
    SystemColumn("last_seen_at", TIMESTAMP, nullable=False),
    SystemColumn("last_method", TEXT),
    SystemColumn("user_id", TEXT),
)
_TRANSACTION_COLUMNS = (
    SystemColumn("transaction_id", TEXT, nullable=False),
    SystemColumn("owner_id", TEXT, nullable=False),
    SystemColumn("origin", TEXT, nullable=False),
    SystemColumn("state", TEXT, nullable=False),
    SystemColumn("age_ms", BIGINT, nullable=False),
    SystemColumn("idle_ms", BIGINT, nullable=False),
    SystemColumn("write_count", BIGINT, nullable=False),
    SystemColumn("write_bytes", BIGINT, nullable=False),
    SystemColumn("touched_tables_count", INT, nullable=False),
    SystemColumn("snapshot_commit_seq", BIGINT, nullable=False),
    SystemColumn("user_id", TEXT, nullable=False),
)
_LOG_COLUMNS = (
    SystemColumn("timestamp", TIMESTAMP, nullable=False),
    SystemColumn("level", TEXT, nullable=False),
    SystemColumn("thread", TEXT),
    SystemColumn("target", TEXT),
    SystemColumn("line", INT),
    SystemColumn("message", TEXT, nullable=False),
    SystemColumn("request_id", TEXT),
)
_ORIGIN = "sql_batch"


def _settings_rows(view: ReadView, context: SystemContext) -> Rows:
    return sorted(context.settings())


def _stats_rows(view: ReadView, context: SystemContext) -> Rows:
    return sorted(context.stats().items())


def _session_rows(view: ReadView, context: SystemContext) -> Rows:
    """One row for each request under way, WebSocket and event stream, oldest first."""
    transactions = {entry.request_id: entry for entry in context.transactions()}
    for session in sorted(context.sessions(), key=lambda session: (session.opened_at, session.session_id)):
        entry = transactions.get(session.session_id)
        yield (
            session.session_id, os.getpid(), None, session.state,
            None if entry is None else entry.transaction_id, None if entry is None else entry.state,
            entry is not None and entry.write_count > 0, session.client_addr, session.transport, session.opened_at,
            session.last_seen_at, session.last_method, session.user_id,
        )  # fmt: skip


def _transaction_rows(view: ReadView, context: SystemContext) -> Rows:
    """One row for each BEGIN … COMMIT that runs, in the order of BEGIN."""
    for entry in context.transactions():
        yield (
            entry.transaction_id, entry.request_id, _ORIGIN, entry.state, entry.age_ms, entry.idle_ms,
            entry.write_count, entry.write_bytes, entry.touched_tables, entry.snapshot_seq, entry.user,
        )  # fmt: skip


def _log_rows(view: ReadView, context: SystemContext) -> Iterator[tuple[object, ...]]:
    """The lines that the server keeps, newest first."""
    for line in context.logs():
        yield line.timestamp, line.level, line.thread, line.target, line.line, line.message, line.request_id


SERVER_TABLES = (
    SystemTable(SYSTEM, "settings", SETTINGS_COLUMNS, _settings_rows, key=("name",)),
    SystemTable(SYSTEM, "stats", _STATS_COLUMNS, _stats_rows, key=("metric_name",)),
    SystemTable(SYSTEM, "sessions", _SESSION_COLUMNS, _session_rows, key=("session_id",)),
    SystemTable(SYSTEM, "transactions", _TRANSACTION_COLUMNS, _transaction_rows, key=("transaction_id",)),
    SystemTable(SYSTEM, "server_logs", _LOG_COLUMNS, _log_rows),
)
