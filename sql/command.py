"""Commands: statements that administer the server, each of which runs itself, outside of BEGIN … COMMIT.

A family of commands (jobs, storages, …) is a module of frozen dataclasses derived from `Command`, a module of parsers
that `sql.parser_administration` lists by their first words, and the modules that do the work. `run` imports those when
it is called, so that a server at rest does without them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from sql.results import StatementResult
    from sql.services import Services, StatementContext


class Command:
    """A statement that runs itself. It commits what it changes, so it stands outside of transactions.

    `reads_only` tells that it may be left alone when its client has gone; `impersonable` that EXECUTE AS USER may
    hold it.
    """

    __slots__ = ()
    reads_only: ClassVar[bool] = False
    impersonable: ClassVar[bool] = False

    @abstractmethod
    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Carry it out in a worker thread. Raises SqlError; then nothing of it was done."""

    def audit_target(self, namespace: str) -> str:
        """What the audit log names as its target: by default the first name among the fields."""
        from sql.audited import target_of

        return target_of(self, namespace)
