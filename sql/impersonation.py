"""EXECUTE AS USER: who may act as whom, what the statement may be, and what the audit log hears of it.

The inner statement runs with the role `user`, whatever the target's role. Every one that acts as somebody else has an
entry: in the commit of what it writes; queued, at most once a minute, when it only reads, fails or is rolled back; and
of a refusal before it is answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sql.audit import EXECUTE_AS, record
from sql.audit_log import impersonation
from sql.audited import action_of, tables_of
from sql.command import Command
from sql.errors import ExecutionError, InvalidInput, PermissionDenied
from sql.identity import Identity, Role
from sql.rights import may_impersonate, may_read
from sql.services import Services, StatementContext
from sql.statements import (
    AlterUser,
    Begin,
    Commit,
    CreateUser,
    Delete,
    DropUser,
    ExecuteAs,
    Explain,
    Insert,
    Rollback,
    Statement,
    SubscribeTo,
    Update,
    UseNamespace,
)
from sql.storage_errors import storage_errors
from sql.topic_statements import TOPIC_DEFINITIONS, TOPIC_MESSAGES
from sql.write_targets import named_table
from storage.views import ReadView
from storage.writer import WriteTransaction

_REFUSED = (
    CreateUser, AlterUser, DropUser, Begin, Commit, Rollback, UseNamespace, ExecuteAs, SubscribeTo,
    *TOPIC_DEFINITIONS, *TOPIC_MESSAGES,
)  # fmt: skip


def enter(statement: ExecuteAs, context: StatementContext, services: Services) -> StatementContext:
    """The context of the inner statement. Raises InvalidInput, and PermissionDenied when the audit log has it."""
    caller = context.identity
    with storage_errors(), services.engine.snapshot(purpose="execute as user") as snapshot:
        allowed = may_impersonate(caller, statement.user, snapshot)
    inner = statement.inner
    if not allowed:
        services.audit.denied(context, statement.user, action_of(inner))
        raise PermissionDenied(
            f"Permission denied: role {caller.role.value} may not execute as user '{statement.user}'"
        )
    forbidden = isinstance(inner, Command) and not inner.impersonable
    if forbidden or isinstance(inner, _REFUSED):
        raise InvalidInput("EXECUTE AS USER takes one query, definition, INSERT, UPDATE, DELETE, SHOW or DESCRIBE")
    return context.as_user(Identity(user=statement.user, role=Role.USER))


def refuse_shared(statement: Insert | Update | Delete, view: ReadView, context: StatementContext) -> None:
    """EXECUTE AS USER writes no SHARED table. Who may not know of the table hears "permission denied" as ever."""
    table = named_table(statement.ast, view.catalog, context.namespace)
    if table is not None and not table.per_user and may_read(context.identity.role, table):
        raise ExecutionError(
            f"EXECUTE AS USER is not allowed on SHARED tables (table '{table.full_name}'). "
            "AS USER impersonation is only supported for USER and STREAM tables."
        )


class Impersonation:
    """One statement that runs as somebody else, as the audit log tells of it."""

    def __init__(self, statement: Statement, context: StatementContext, services: Services) -> None:
        self._context = context
        self._services = services
        self._subject = context.identity.user
        self._what = action_of(statement.inner if isinstance(statement, Explain) else statement)
        self._tables = tables_of(statement, context.namespace)
        self._is_staged = False

    def stage(self, writer: WriteTransaction) -> None:
        """Put the entry into a commit."""
        target, details, subject = impersonation(self._subject, self._what, self._tables)
        record(writer, self._context, EXECUTE_AS, target, details, subject)
        self._is_staged = True

    def end(self, *, committed: bool) -> None:
        """The statement is over. Without a commit that has the entry, it is queued by itself."""
        if not (committed and self._is_staged):
            self._services.audit.impersonated(self._context, self._subject, self._what, self._tables)


@contextmanager
def impersonating(
    statement: Statement, context: StatementContext, services: Services
) -> Iterator[Impersonation | None]:
    """Around a statement that commits what it writes; None when it runs in the caller's own name."""
    if context.subject is None:
        yield None
        return
    found = Impersonation(statement, context, services)
    committed = False
    try:
        yield found
        committed = True
    finally:
        found.end(committed=committed)
