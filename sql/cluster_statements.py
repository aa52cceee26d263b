"""CLUSTER …: known, and not available. Headrace is a single node (system.cluster shows it); no action has a meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sql.command import Command
from sql.errors import ClusterUnavailable, PermissionDenied

if TYPE_CHECKING:
    from sql.parser_cursor import Cursor
    from sql.results import StatementResult
    from sql.services import Services, StatementContext

ACTIONS: Final = (
    ("snapshot",),
    ("purge",),
    ("trigger", "election"),
    ("transfer", "-", "leader"),
    ("rebalance",),
    ("stepdown",),
    ("join",),
    ("leave",),
    ("clear",),
    ("list",),
    ("ls",),
    ("status",),
)
"""The actions by their words. What follows one, such as the addresses of JOIN, is not read."""


@dataclass(frozen=True, slots=True)
class ClusterAction(Command):
    """CLUSTER and the words of an action: SNAPSHOT, PURGE, TRIGGER ELECTION, JOIN and so on."""

    action: str

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Refuse: callers without the right as everywhere, others because there is no cluster."""
        role = context.identity.role
        if not role.is_admin:
            raise PermissionDenied(f"Permission denied: CLUSTER needs the role dba or system, not {role.value}")
        raise ClusterUnavailable(
            f"CLUSTER {self.action} is not available: Headrace runs as a single node; system.cluster shows it"
        )


def parse_cluster(cursor: Cursor) -> ClusterAction:
    """CLUSTER, after that word."""
    for words in ACTIONS:
        if cursor.accept(*words):
            cursor.index = cursor.end
            return ClusterAction(" ".join(words).replace(" - ", "-").upper())
    raise cursor.expected("an action such as SNAPSHOT, REBALANCE, JOIN or STATUS after CLUSTER")
