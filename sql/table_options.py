"""The WITH options of CREATE TABLE: which there are, what they may say, and how they are stored.

Options are stored in `TableDef.options` by lower-case name as canonical text. STORAGE_ID, USE_USER_STORAGE and
DELETED_RETENTION_HOURS describe what later layers do with a table; FLUSH_POLICY when its rows move to cold files. The
access level and TTL_SECONDS are fields of the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sql.errors import ExecutionError
from storage.catalog import AccessLevel, TableKind

MAX_FLUSH_ROWS = 1_000_000
MAX_FLUSH_SECONDS = 86_400
MAX_RETENTION_HOURS = 24 * 366 * 100
MAX_TTL_SECONDS = 100 * 366 * 86_400
LOCAL_STORAGE = "local"


class TableOptions(NamedTuple):
    """What the options come to: those to store as text, and those that are fields of the definition."""

    stored: dict[str, str]
    level: AccessLevel
    ttl_seconds: int


def parse_access_level(value: object) -> AccessLevel:
    """An access level by its name."""
    try:
        return AccessLevel(str(value).strip().lower())
    except ValueError:
        levels = ", ".join(level.value.upper() for level in AccessLevel)
        raise ExecutionError(f"Invalid operation: Unknown ACCESS_LEVEL '{value}' (one of {levels})") from None


def parse_options(
    options: dict[str, object], kind: TableKind, is_storage: Callable[[str], bool] = LOCAL_STORAGE.__eq__
) -> TableOptions:
    """The options of a table; an error for an unknown one, one that does not fit the kind, or one that is missing."""
    stored = {}
    level = AccessLevel.PRIVATE
    ttl = 0
    for name, value in options.items():
        if name == "TYPE":  # the statement's kind
            continue
        if name == "ACCESS_LEVEL":
            if kind is not TableKind.SHARED:
                raise ExecutionError("Invalid operation: ACCESS_LEVEL applies to SHARED tables only")
            level = parse_access_level(value)
        elif name == "TTL_SECONDS":
            if kind is not TableKind.STREAM:
                raise ExecutionError("Invalid operation: TTL_SECONDS applies to STREAM tables only")
            ttl = parse_ttl(value)
        elif name in _NOT_OF_STREAMS and kind is TableKind.STREAM:
            raise ExecutionError(f"Invalid operation: {name} does not apply to STREAM tables")
        elif name == "USE_USER_STORAGE" and kind is not TableKind.USER:
            raise ExecutionError("Invalid operation: USE_USER_STORAGE applies to USER tables only")
        elif (parser := _PARSERS.get(name)) is not None:
            stored[name.lower()] = parser(value)
            if name == "STORAGE_ID":
                _check_storage(stored["storage_id"], is_storage)
        else:
            known = ", ".join(sorted([*_PARSERS, "TYPE", "ACCESS_LEVEL", "TTL_SECONDS"]))
            raise ExecutionError(f"Invalid operation: Unknown table option '{name}' (known: {known})")
    if kind is TableKind.STREAM and not ttl:
        raise ExecutionError(
            "Invalid operation: a STREAM table needs TTL_SECONDS: CREATE STREAM TABLE … WITH (TTL_SECONDS = 60)"
        )
    return TableOptions(stored, level, ttl)


def parse_ttl(value: object) -> int:
    """The seconds that rows of a STREAM table live: a whole number from 1 on."""
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ExecutionError(f"Invalid operation: TTL_SECONDS must be a whole number of seconds, not '{value}'")
    if not 1 <= int(text) <= MAX_TTL_SECONDS:
        raise ExecutionError(f"Invalid operation: TTL_SECONDS must be between 1 and {MAX_TTL_SECONDS:,}, not {text}")
    return int(text)


def parse_changeable(name: str, value: object, kind: TableKind, is_storage: Callable[[str], bool]) -> str | None:
    """STORAGE_ID or FLUSH_POLICY as ALTER TABLE sets it; None: the option ends (NULL)."""
    if kind is TableKind.STREAM:
        raise ExecutionError(f"Invalid operation: {name} does not apply to STREAM tables")
    if value is None:
        return None
    text = _PARSERS[name](value)
    if name == "STORAGE_ID":
        _check_storage(text, is_storage)
    return text


def _storage_id(value: object) -> str:
    return str(value)


def _check_storage(storage_id: str, is_storage: Callable[[str], bool]) -> None:
    if not is_storage(storage_id):
        raise ExecutionError(
            f"Invalid operation: Storage '{storage_id[:80]}' does not exist; create it with CREATE STORAGE"
        )


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


_NOT_OF_STREAMS = frozenset({"STORAGE_ID", "FLUSH_POLICY"})
"""Options about cold files, which rows of STREAM tables never reach."""

_PARSERS: dict[str, Callable[[object], str]] = {
    "STORAGE_ID": _storage_id,
    "USE_USER_STORAGE": _boolean,
    "FLUSH_POLICY": _flush_policy,
    "DELETED_RETENTION_HOURS": _retention_hours,
}
