"""Which statements the audit log tells of, and what it says: the hooks that `sql.session` puts around them.

Nobody who adds a statement needs to think of it. A definition has its entry in the commit that changes the catalog, an
account statement in the one that changes the account, both only when something changed. A `Command` that does not say
`reads_only` has one, too: its own works may write it (`services.audit.record(writer, context, …)`), and when none did,
it is committed when the command has run.

The action is the statement's name: `CreateTable` is CREATE_TABLE. The target is what it names first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlglot import exp

from sql.audit import Trail, record, statement_text
from sql.command import Command
from sql.results import StatementResult
from sql.services import Services, StatementContext
from sql.statements import AlterUser, CreateUser, DropUser, Explain, Parsed, Statement
from sql.table_name import TableName
from sql.topic_statements import ClearTopic
from storage.catalog import USER_KIND, Catalog, UserDef
from storage.writer import WriteTransaction

Work = Callable[[WriteTransaction], StatementResult]

_WORD: Final = re.compile(r"(?<!^)(?=[A-Z])")
_SHOWN: Final = ("role", "email", "auth_type")
"""What an entry shows of an account, old and new."""


def action_of(statement: Statement) -> str:
    """The name of a statement in the log."""
    return _WORD.sub("_", type(statement).__name__).upper()


def target_of(statement: object, namespace: str) -> str:
    """What a statement names first: a table or topic with its namespace, or a name."""
    for part in dataclasses.fields(statement) if dataclasses.is_dataclass(statement) else ():
        value = getattr(statement, part.name)
        if isinstance(value, TableName):
            return f"{value.namespace or namespace}.{value.name}"
        if isinstance(value, str):
            return value
    return ""


def tables_of(statement: Statement, namespace: str) -> tuple[str, ...]:
    """The tables that a statement names, by full name, in alphabetical order."""
    inner = statement.inner if isinstance(statement, Explain) else statement
    ast = getattr(inner, "ast", None)
    if not isinstance(ast, exp.Expression):
        target = target_of(inner, namespace)
        return (target,) if target else ()
    local = {cte.alias for cte in ast.find_all(exp.CTE)}
    nodes = [node for node in ast.find_all(exp.Table) if node.name and (node.db or node.name not in local)]
    return tuple(sorted({f"{node.db or namespace}.{node.name}" for node in nodes}))


# --- definitions and accounts -----------------------------------------------------------------------------------------


def audited_definition(
    parsed: Parsed,
    statement: Statement,
    context: StatementContext,
    work: Work,
    also: Callable[[WriteTransaction], None] | None = None,
) -> Work:
    """`work`, and its entry (and what `also` adds) in the same commit if the catalog is another one afterwards."""

    def both(writer: WriteTransaction) -> StatementResult:
        before = writer.catalog
        result = work(writer)
        if writer.catalog is not before or isinstance(statement, ClearTopic):
            details: dict[str, object] = {"statement": statement_text(parsed.text)}
            gone = _dropped(before, writer.catalog)
            target = target_of(statement, context.namespace)
            if gone and gone != [target]:
                details["dropped"] = gone
            record(writer, context, action_of(statement), target, details, context.subject)
            if also is not None:
                also(writer)
        return result

    return both


def _dropped(before: Catalog, after: Catalog) -> list[str]:
    """The tables, topics and views that are gone: those of a dropped namespace."""
    if before is after:
        return []

    def names(catalog: Catalog) -> set[str]:
        found = {table.full_name for table in catalog.tables()} | {view.full_name for view in catalog.views()}
        return found | {topic.full_name for topic in catalog.topics()}

    return sorted(names(before) - names(after))


def audited_account(statement: CreateUser | AlterUser | DropUser, context: StatementContext, work: Work) -> Work:
    """`work`, and its entry in the same commit if the account is another one afterwards."""

    def both(writer: WriteTransaction) -> StatementResult:
        before = writer.get_object(USER_KIND, statement.name, UserDef)
        result = work(writer)
        after = writer.get_object(USER_KIND, statement.name, UserDef)
        if after is not None and after != before:
            details = account_changes(before, after)
            record(writer, context, action_of(statement), statement.name, details, statement.name)
        return result

    return both


def account_changes(before: UserDef | None, after: UserDef) -> dict[str, object]:
    """What changed in an account; of a password only that it did."""
    if after.deleted_at is not None:
        return {}
    if before is None or before.deleted_at is not None:
        made: dict[str, object] = {name: getattr(after, name) for name in _SHOWN if getattr(after, name) is not None}
        return made if before is None else made | {"made_anew": True}
    changed: dict[str, object] = {
        name: {"from": getattr(before, name), "to": getattr(after, name)}
        for name in _SHOWN
        if getattr(before, name) != getattr(after, name)
    }
    return changed | ({"password": "changed"} if before.password_hash != after.password_hash else {})


# --- commands ---------------------------------------------------------------------------------------------------------


def run_command(statement: Command, parsed: Parsed, context: StatementContext, services: Services) -> StatementResult:
    """Run a command; unless it only reads, it has an entry when this returns. Raises SqlError."""
    if statement.reads_only:
        return statement.run(context, services)
    trail = Trail()
    result = statement.run(replace(context, trail=trail), services)
    if not trail.recorded:
        details = {"statement": statement_text(parsed.text), "result": result.message or ""}
        target = statement.audit_target(context.namespace)
        services.audit.note(context, action_of(statement), target, details, context.subject)
    return result
