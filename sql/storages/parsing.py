"""Parsers of the statements about storages; each is called behind its first words."""

from __future__ import annotations

from typing import Final

from sql.diagnostics import shown
from sql.parser_cursor import Cursor
from sql.storages.statements import (
    STORAGE_TYPES,
    AlterStorage,
    CreateStorage,
    DropStorage,
    ShowManifest,
    ShowStorages,
    StorageCheck,
    StorageClauses,
    StorageCompact,
    StorageFlush,
)

_ID = "a storage's id"

_CLAUSES: Final = {
    "name": "name", "description": "description", "path": "path", "bucket": "bucket",
    "base_directory": "base_directory", "region": "region", "shared_tables_template": "shared_template",
    "user_tables_template": "user_template", "credentials": "credentials", "config": "config",
}  # fmt: skip
_ALTERABLE: Final = frozenset({
    "name", "description", "shared_tables_template", "user_tables_template", "credentials", "config",
})  # fmt: skip


def parse_create_storage(cursor: Cursor) -> CreateStorage:
    """CREATE STORAGE [IF NOT EXISTS] id TYPE type clauses, in any order behind the type."""
    if_not_exists = cursor.if_not_exists()
    storage_id = cursor.name_or_string(_ID)
    cursor.expect("type")
    start = cursor.peek()
    kind = cursor.name_or_string("a storage's type").lower()
    known = next((known for known in STORAGE_TYPES if known == kind), None)
    if known is None:
        cursor.fail(f"{shown(kind)} is not a type of storage: {', '.join(STORAGE_TYPES)}.", start)
    return CreateStorage(storage_id, known, _clauses(cursor, frozenset(_CLAUSES)), if_not_exists)


def parse_alter_storage(cursor: Cursor) -> AlterStorage:
    """ALTER STORAGE id SET NAME 'n' … ; SET may be repeated, commas may stand between."""
    storage_id = cursor.name_or_string(_ID)
    if not cursor.at("set"):
        cursor.fail_expected("SET")
    return AlterStorage(storage_id, _clauses(cursor, _ALTERABLE, altering=True))


def parse_drop_storage(cursor: Cursor) -> DropStorage:
    """DROP STORAGE [IF EXISTS] id."""
    if_exists = cursor.if_exists()
    return DropStorage(cursor.name_or_string(_ID), if_exists)


def parse_show_storages(cursor: Cursor) -> ShowStorages:
    """SHOW STORAGES."""
    return ShowStorages()


def parse_show_manifest(cursor: Cursor) -> ShowManifest:
    """SHOW MANIFEST."""
    return ShowManifest()


def parse_check(cursor: Cursor) -> StorageCheck:
    """STORAGE CHECK id [EXTENDED]."""
    storage_id = cursor.name_or_string(_ID)
    return StorageCheck(storage_id, cursor.accept("extended"))


def parse_flush(cursor: Cursor) -> StorageFlush:
    """STORAGE FLUSH TABLE t | ALL [IN [NAMESPACE] ns]."""
    if cursor.accept("table"):
        return StorageFlush(cursor.table_name())
    return StorageFlush(None, _all_in(cursor))


def parse_compact(cursor: Cursor) -> StorageCompact:
    """STORAGE COMPACT TABLE t | ALL [IN [NAMESPACE] ns]."""
    if cursor.accept("table"):
        return StorageCompact(cursor.table_name())
    return StorageCompact(None, _all_in(cursor))


def _all_in(cursor: Cursor) -> str | None:
    if not cursor.accept("all"):
        cursor.fail_expected("TABLE or ALL")
    if not cursor.accept("in"):
        return None
    if cursor.word() == "namespace" and cursor.peek(1) is not None:
        cursor.index += 1
    return cursor.name("a namespace's name")


def _clauses(cursor: Cursor, allowed: frozenset[str], *, altering: bool = False) -> StorageClauses:
    found: dict[str, str] = {}
    while cursor.peek() is not None:
        if altering:
            cursor.accept(",")
            cursor.accept("set")
        word = cursor.word()
        token = cursor.peek()
        if word not in _CLAUSES:
            cursor.fail_expected(", ".join(sorted(name.upper() for name in allowed)))
        if word not in allowed:
            cursor.fail(f"{word.upper()} of a storage cannot be changed: its files lie there.", token)
        field = _CLAUSES[word]
        if field in found:
            cursor.fail(f"{word.upper()} is given twice.", token)
        cursor.index += 1
        found[field] = cursor.string(f"a text in quotes after {word.upper()}")
    if altering and not found:
        cursor.fail_expected("NAME, DESCRIPTION, a template, CONFIG or CREDENTIALS")
    return StorageClauses(**found)
