"""Which parser reads which command: by its first words. To add a command, add a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sql import parser_live as live
from sql import parser_vectors as vectors
from sql.backup.statements import parse_backup, parse_restore
from sql.cluster_statements import parse_cluster
from sql.command import Command
from sql.exports.statements import parse_export, parse_show_export
from sql.indexes.statements import (
    parse_create_index,
    parse_create_unique_index,
    parse_drop_index,
    parse_show_indexes,
)
from sql.jobs.statements import parse_kill_job
from sql.parser_cursor import Cursor
from sql.settings_statements import parse_show_settings
from sql.storages import parsing as storages

LONGEST: Final = 3
"""Most words that tell a command."""

ADMINISTRATION: Final[dict[tuple[str, ...], Callable[[Cursor], Command]]] = {
    ("create", "storage"): storages.parse_create_storage,
    ("alter", "storage"): storages.parse_alter_storage,
    ("drop", "storage"): storages.parse_drop_storage,
    ("show", "storages"): storages.parse_show_storages,
    ("show", "manifest"): storages.parse_show_manifest,
    ("storage", "check"): storages.parse_check,
    ("storage", "flush"): storages.parse_flush,
    ("storage", "compact"): storages.parse_compact,
    ("backup", "database"): parse_backup,
    ("restore", "database"): parse_restore,
    ("export", "user", "data"): parse_export,
    ("show", "export"): parse_show_export,
    ("create", "index"): parse_create_index,
    ("create", "unique", "index"): parse_create_unique_index,
    ("drop", "index"): parse_drop_index,
    ("kill", "job"): parse_kill_job,
    ("kill", "live"): live.parse_kill,
    ("create", "vector", "index"): vectors.parse_create_vector_index,
    ("drop", "vector", "index"): vectors.parse_drop_vector_index,
    ("cluster",): parse_cluster,
    ("show", "all"): parse_show_settings,
    ("show", "settings"): parse_show_settings,
    ("show", "indexes"): parse_show_indexes,
}
"""Parsers by first words, in small letters. Each is called behind them."""


def administration_parser(cursor: Cursor) -> Callable[[Cursor], Command] | None:
    """The parser of the command that begins here, if one does; the cursor is moved behind its first words."""
    words = tuple(cursor.word(ahead) for ahead in range(LONGEST))
    for length in range(LONGEST, 0, -1):
        parser = ADMINISTRATION.get(words[:length])
        if parser is not None:
            cursor.index += length
            return parser
    return None
