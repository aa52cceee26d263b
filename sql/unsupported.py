"""Names of statements that Headrace knows of and does not have, so that the error can say which one it is."""

from __future__ import annotations

from collections.abc import Sequence

_FIRST_WORDS: dict[str, str] = {
    "abort": "ABORT (write ROLLBACK)",
    "analyze": "ANALYZE",
    "attach": "ATTACH",
    "backup": "BACKUP of anything but the DATABASE",
    "call": "CALL",
    "checkpoint": "CHECKPOINT",
    "close": "A cursor (CLOSE)",
    "comment": "COMMENT ON",
    "copy": "COPY",
    "deallocate": "DEALLOCATE",
    "declare": "A cursor (DECLARE)",
    "detach": "DETACH",
    "discard": "DISCARD",
    "do": "DO",
    "execute": "EXECUTE of a prepared statement",
    "export": "EXPORT of anything but USER DATA",
    "fetch": "A cursor (FETCH)",
    "flush": "FLUSH",
    "grant": "GRANT",
    "import": "IMPORT",
    "install": "INSTALL",
    "kill": "KILL of anything but a LIVE QUERY",
    "listen": "LISTEN",
    "load": "LOAD",
    "lock": "LOCK",
    "merge": "MERGE",
    "notify": "NOTIFY",
    "optimize": "OPTIMIZE",
    "pivot": "PIVOT",
    "pragma": "PRAGMA",
    "prepare": "PREPARE",
    "refresh": "REFRESH",
    "reindex": "REINDEX",
    "release": "A savepoint (RELEASE)",
    "replace": "REPLACE (write INSERT … ON CONFLICT)",
    "reset": "RESET of anything but a CONSUMER GROUP",
    "restore": "RESTORE of anything but the DATABASE",
    "revoke": "REVOKE",
    "savepoint": "SAVEPOINT",
    "storage": "STORAGE beside CHECK, FLUSH and COMPACT",
    "summarize": "SUMMARIZE",
    "truncate": "TRUNCATE (write DELETE … WHERE true)",
    "unlisten": "UNLISTEN",
    "unpivot": "UNPIVOT",
    "upsert": "UPSERT (write INSERT … ON CONFLICT)",
    "vacuum": "VACUUM",
}

_OBJECTS = frozenset({
    "aggregate", "cast", "database", "domain", "extension", "function", "group", "index", "macro", "materialized",
    "operator", "pipeline", "policy", "procedure", "publication", "role", "rule", "schedule", "secret", "sequence",
    "server", "sink", "source", "statistics", "storage", "stream", "subscription", "system", "temp", "temporary",
    "transformation", "trigger", "type", "unique", "unlogged", "vector", "view",
})  # fmt: skip
_MODIFIERS = frozenset({"or", "replace", "temp", "temporary", "unique", "unlogged", "recursive", "global", "local"})


def unsupported_statement(words: Sequence[str]) -> str | None:
    """The name of the statement that begins with these words (lower case, four of them), if it is a known one."""
    first = words[0]
    if first == "set":
        return f"SET {words[1].upper()}".rstrip()
    if first not in ("create", "alter", "drop"):
        return _FIRST_WORDS.get(first)
    kinds = [word for word in words[1:] if word and word not in _MODIFIERS]
    if words[1] in ("temp", "temporary", "unlogged"):
        return f"{first.upper()} {words[1].upper()} {kinds[0].upper() if kinds else ''}".rstrip()
    if words[1:3] == ["or", "replace"] and kinds and kinds[0] not in _OBJECTS:
        return f"{first.upper()} OR REPLACE {kinds[0].upper()}"
    if kinds and kinds[0] in _OBJECTS:
        more = len(kinds) > 1 and (kinds[0], kinds[1]) in _PAIRS
        return f"{first.upper()} {kinds[0].upper()}" + (f" {kinds[1].upper()}" if more else "")
    return None


_PAIRS = frozenset({("materialized", "view"), ("vector", "index")})
