"""Rules for the names of namespaces, tables, topics, columns and users."""

from __future__ import annotations

import re

from sql.errors import ExecutionError

MAX_NAME = 64
MAX_USER_ID = 128

RESERVED_NAMESPACES = frozenset({
    "admin", "datafusion", "default", "headrace", "information_schema", "internal", "kalam", "kalamdb", "main",
    "pg_catalog", "root", "sql", "sys", "system",
})  # fmt: skip

RESERVED_COLUMNS = frozenset({
    "_by", "_commit_seq", "_created", "_deleted", "_hash", "_id", "_key", "_row_id", "_rowid", "_seq", "_timestamp",
    "_updated", "_version",
})  # fmt: skip

SQL_KEYWORDS = frozenset({
    "all", "alter", "analyze", "and", "any", "as", "asc", "begin", "between", "by", "case", "cast", "check",
    "collate", "column", "commit", "constraint", "create", "cross", "current_date", "current_role", "current_time",
    "current_timestamp", "current_user", "database", "default", "delete", "desc", "describe", "distinct", "drop",
    "else", "end", "except", "execute", "exists", "explain", "false", "fetch", "for", "foreign", "from", "full",
    "grant", "group", "having", "if", "in", "index", "inner", "insert", "intersect", "into", "is", "join", "key",
    "lateral", "left", "like", "limit", "namespace", "natural", "not", "null", "offset", "on", "or", "order",
    "outer", "primary", "references", "returning", "revoke", "right", "rollback", "schema", "select",
    "session_user", "set", "shared", "show", "some", "stream", "table", "then", "to", "topic", "transaction",
    "true", "truncate", "union", "unique", "update", "use", "user", "using", "values", "view", "when", "where",
    "window", "with",
})  # fmt: skip

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_namespace_name(name: str) -> None:
    """Raise ExecutionError unless a new namespace may have this name."""
    _check_plain("Namespace", name)
    if name.lower() in RESERVED_NAMESPACES or name.lower() in SQL_KEYWORDS:
        raise ExecutionError(f"Invalid operation: Namespace name '{name}' is reserved")


def check_table_name(name: str) -> None:
    """Raise ExecutionError unless a new table may have this name."""
    _check_plain("Table", name)


def check_view_name(name: str) -> None:
    """Raise ExecutionError unless a new view may have this name."""
    _check_plain("View", name)


def check_topic_name(name: str) -> None:
    """Raise ExecutionError unless a new topic may have this name."""
    _check_plain("Topic", name)


def check_index_name(name: str) -> None:
    """Raise ExecutionError unless a new index may have this name."""
    _check_free("Index", name)


def check_column_name(name: str) -> None:
    """Raise ExecutionError unless a new column may have this name."""
    _check_free("Column", name)
    if name in RESERVED_COLUMNS:
        raise ExecutionError(f"Invalid operation: Column name '{name}' is reserved for the system")


def check_user_id(name: str) -> None:
    """Raise ExecutionError unless a new account may have this name."""
    if not name or len(name) > MAX_USER_ID:
        raise ExecutionError(f"Invalid operation: User name '{_short(name)}' must have 1 to {MAX_USER_ID} characters")
    if ".." in name or "/" in name or "\\" in name or _CONTROL.search(name):
        raise ExecutionError(
            f"Invalid operation: User name {name!r} must not contain '..', '/', '\\' or control characters"
        )
    if name != name.strip():
        raise ExecutionError(f"Invalid operation: User name {name!r} must not begin or end with white space")


def _check_free(kind: str, name: str) -> None:
    """What every name must be."""
    if not name or len(name) > MAX_NAME:
        raise ExecutionError(f"Invalid operation: {kind} name '{_short(name)}' must have 1 to {MAX_NAME} characters")
    if _CONTROL.search(name):
        raise ExecutionError(f"Invalid operation: {kind} name {name!r} contains a control character")


def _check_plain(what: str, name: str) -> None:
    if not name or len(name) > MAX_NAME:
        raise ExecutionError(f"Invalid operation: {what} name '{_short(name)}' must have 1 to {MAX_NAME} characters")
    if not _NAME.match(name):
        raise ExecutionError(
            f"Invalid operation: {what} name {name!r} must begin with a letter and "
            "contain only ASCII letters, digits and underscores"
        )


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[:MAX_NAME] + "…"
