"""The WITH options of CREATE TABLE: which there are, what they may say, and how they are stored.

Options are stored in `TableDef.options` by lower-case name as canonical text. STORAGE_ID, USE_USER_STORAGE and
DELETED_RETENTION_HOURS describe what later layers do with a table; FLUSH_POLICY when its rows move to cold files.
"""

from __future__ import annotations

from collections.abc import Callable

from sql.errors import ExecutionError
from storage.catalog import AccessLevel, TableKind

MAX_FLUSH_ROWS = 1_000_000
MAX_FLUSH_SECONDS = 86_400
MAX_RETENTION_HOURS = 24 * 366 * 100
LOCAL_STORAGE = "local"


def parse_access_level(value: object) -> AccessLevel:
    """An access level by its name."""
    try:
        return AccessLevel(str(value).strip().lower())
    except ValueError:
        levels = ", ".join(level.value.upper() for level in AccessLevel)
        raise ExecutionError(f"Invalid operation: Unknown ACCESS_LEVEL '{value}' (one of {levels})") from None


def parse_options(options: dict[str, object], kind: TableKind) -> tuple[dict[str, str], AccessLevel]:
    """Options to store, and the access level; an error for an unknown one or one that does not fit the kind."""
    stored = {}
    level = AccessLevel.PRIVATE
    for name, value in options.items():
        if name == "TYPE":  # the statement's kind
            continue
        if name == "ACCESS_LEVEL":
            if kind is not TableKind.SHARED:
                raise ExecutionError("Invalid operation: ACCESS_LEVEL applies to SHARED tables only")
            level = parse_access_level(value)
        elif name == "TTL_SECONDS":
            raise ExecutionError("Invalid operation: TTL_SECONDS applies to STREAM tables only")
        elif name == "USE_USER_STORAGE" and kind is not TableKind.USER:
            raise ExecutionError("Invalid operation: USE_USER_STORAGE applies to USER tables only")
        elif (parser := _PARSERS.get(name)) is not None:
            stored[name.lower()] = parser(value)
        else:
            known = ", ".join(sorted([*_PARSERS, "TYPE", "ACCESS_LEVEL"]))
            raise ExecutionError(f"Invalid operation: Unknown table option '{name}' (known: {known})")
    return stored, level


def _storage_id(value: object) -> str:
    if value != LOCAL_STORAGE:
        raise ExecutionError(f"Invalid operation: Storage '{value}' does not exist (there is only 'local')")
    return LOCAL_STORAGE


def _boolean(value: object) -> str:
    text = str(value).strip().lower()
    if text not in {"true", "false"}:
        raise ExecutionError(f"Invalid operation: USE_USER_STORAGE must be TRUE or FALSE, not '{value}'")
    return text


def _flush_policy(value: object) -> str:
    """`rows:N`, `interval:S` or both; each at most once, rows first."""
    found: dict[str, int] = {}
    for part in str(value).split(","):
        name, _, number = part.strip().partition(":")
        name = name.strip().lower()
        number = number.strip()
        bound = {"rows": MAX_FLUSH_ROWS, "interval": MAX_FLUSH_SECONDS}.get(name)
        if bound is None or name in found or not (number.isascii() and number.isdigit() and len(number) < 10):
            raise ExecutionError(
                f"Invalid operation: FLUSH_POLICY '{value}' is not 'rows:N', 'interval:SECONDS' or "
                "'rows:N,interval:SECONDS'"
            )
        if not 0 < int(number) < bound:
            raise ExecutionError(f"Invalid operation: FLUSH_POLICY {name} must be between 1 and {bound - 1:,}")
        found[name] = int(number)
    return ",".join(f"{name}:{found[name]}" for name in ("rows", "interval") if name in found)


def _retention_hours(value: object) -> str:
    text = str(value).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) > MAX_RETENTION_HOURS:
        raise ExecutionError(f"Invalid operation: DELETED_RETENTION_HOURS must be a number of hours, not '{value}'")
    return str(int(text))


_PARSERS: dict[str, Callable[[object], str]] = {
    "STORAGE_ID": _storage_id,
    "USE_USER_STORAGE": _boolean,
    "FLUSH_POLICY": _flush_policy,
    "DELETED_RETENTION_HOURS": _retention_hours,
}
