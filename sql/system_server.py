"""System tables over the running server: settings and figures. The server supplies both through SystemContext."""

from __future__ import annotations

from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.types import TEXT
from storage.views import ReadView

_SETTINGS_COLUMNS = tuple(
    SystemColumn(name, TEXT, nullable=False) for name in ("name", "value", "description", "category")
)
_STATS_COLUMNS = tuple(SystemColumn(name, TEXT, nullable=False) for name in ("metric_name", "metric_value"))


def _settings_rows(view: ReadView, context: SystemContext) -> Rows:
    return sorted(context.settings())


def _stats_rows(view: ReadView, context: SystemContext) -> Rows:
    return sorted(context.stats().items())


SERVER_TABLES = (
    SystemTable(SYSTEM, "settings", _SETTINGS_COLUMNS, _settings_rows, key=("name",)),
    SystemTable(SYSTEM, "stats", _STATS_COLUMNS, _stats_rows, key=("metric_name",)),
)
