"""system.storages and SHOW STORAGES. What credentials are is shown to nobody, only that there are some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sql.computed_results import result_of
from sql.results import StatementResult
from sql.storages.registry import storages_of
from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.storage_definitions import StorageDef
from storage.types import JSON, TEXT, TIMESTAMP
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.services import Services, StatementContext

MASKED = "***"

_COLUMNS = (
    SystemColumn("storage_id", TEXT, nullable=False),
    SystemColumn("storage_name", TEXT, nullable=False),
    SystemColumn("description", TEXT),
    SystemColumn("storage_type", TEXT, nullable=False),
    SystemColumn("base_directory", TEXT, nullable=False),
    SystemColumn("credentials", TEXT),
    SystemColumn("config_json", JSON),
    SystemColumn("shared_tables_template", TEXT, nullable=False),
    SystemColumn("user_tables_template", TEXT, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
)


def show_storages(context: StatementContext, services: Services) -> StatementResult:
    """SHOW STORAGES: for everybody."""
    with services.snapshot(context) as snapshot:
        return result_of(_COLUMNS, _rows(snapshot, services.storages.shown_base))


def _rows(view: ReadView, shown_base: Callable[[StorageDef], str]) -> Rows:
    for storage in storages_of(view):
        yield (
            storage.storage_id, storage.name, storage.description, storage.type, shown_base(storage),
            None if storage.credentials is None else MASKED, storage.config_json, storage.shared_tables_template,
            storage.user_tables_template, storage.created_at, storage.updated_at,
        )  # fmt: skip


def _system_rows(view: ReadView, context: SystemContext) -> Rows:
    return _rows(view, context.storage_base)


STORAGES_TABLE = SystemTable(SYSTEM, "storages", _COLUMNS, _system_rows, key=("storage_id",))
