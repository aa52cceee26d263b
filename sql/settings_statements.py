"""SHOW SETTINGS, SHOW ALL and SHOW section.key: system.settings in short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sql.command import Command

if TYPE_CHECKING:
    from sql.parser_cursor import Cursor
    from sql.results import StatementResult
    from sql.services import Services, StatementContext


@dataclass(frozen=True, slots=True)
class ShowSettings(Command):
    """SHOW SETTINGS | ALL | section.key; `name` is the key, None for all."""

    reads_only: ClassVar[bool] = True

    name: str | None = None
    line: int | None = None
    column: int | None = None

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """The rows of system.settings, or the one of that name; for dba and system."""
        from sql.errors import InvalidSql, PermissionDenied
        from sql.rights import nearest
        from sql.show import result_of
        from sql.system_server import SETTINGS_COLUMNS

        role = context.identity.role
        if not role.is_admin:
            raise PermissionDenied(
                f"Permission denied: settings are readable with role dba or system, not {role.value}",
                line=self.line,
                column=self.column,
            )
        rows = sorted(services.runtime.system_context(context.identity).settings())
        if self.name is not None:
            names = [row[0] for row in rows]
            rows = [row for row in rows if row[0] == self.name]
            if not rows:
                near = nearest(self.name, names)
                hint = f" Did you mean '{near}'?" if near else " SHOW SETTINGS lists them."
                raise InvalidSql(f"There is no setting '{self.name}'.{hint}", line=self.line, column=self.column)
        return result_of(SETTINGS_COLUMNS, rows)


def parse_show_settings(cursor: Cursor) -> ShowSettings:
    """SHOW SETTINGS and SHOW ALL, after those words."""
    return ShowSettings()


def parse_show_setting(cursor: Cursor) -> ShowSettings:
    """SHOW section.key, after SHOW."""
    token = cursor.peek()
    parts = [cursor.name("a setting's name")]
    while cursor.accept("."):
        parts.append(cursor.name("a setting's name"))
    return ShowSettings(".".join(parts), token.line if token else None, token.col if token else None)
