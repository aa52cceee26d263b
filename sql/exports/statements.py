"""EXPORT USER DATA and SHOW EXPORT, and their parsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sql.command import Command
from sql.exports.definitions import FORMATS
from sql.parser_cursor import Cursor

if TYPE_CHECKING:
    from sql.results import StatementResult
    from sql.services import Services, StatementContext


@dataclass(frozen=True, slots=True)
class ExportUserData(Command):
    """EXPORT USER DATA [WITH (format = 'csv' | 'parquet')]: what the caller has in USER and STREAM tables."""

    formats: tuple[str, ...] = FORMATS
    impersonable: ClassVar[bool] = True

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Start the job, unless one of today is there."""
        from sql.exports.running import start_export

        return start_export(self.formats, context, services)


@dataclass(frozen=True, slots=True)
class ShowExport(Command):
    """SHOW EXPORT: the caller's exports, the newest first."""

    reads_only: ClassVar[bool] = True
    impersonable: ClassVar[bool] = True

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """List them."""
        from sql.exports.running import show_exports

        return show_exports(context, services)


def parse_export(cursor: Cursor) -> ExportUserData:
    """EXPORT USER DATA [WITH (format = …)], behind these words."""
    if not cursor.accept("with"):
        return ExportUserData()
    at = cursor.peek()
    options = cursor.options()
    chosen = options.pop("format", None)
    if options or chosen not in FORMATS:
        cursor.fail("The only option is format, which is 'csv' or 'parquet'", at)
    return ExportUserData((str(chosen),))


def parse_show_export(cursor: Cursor) -> ShowExport:
    """SHOW EXPORT, behind these words."""
    return ShowExport()
