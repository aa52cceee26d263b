"""One request's statements, run in order on a worker thread: autocommit, transactions, EXECUTE AS USER.

What retries, and why nothing is half applied. A statement that writes is planned and evaluated over a snapshot, into a
`storage.Transaction`; the writer then checks that what it replaces is still current and applies it. When another
commit came first, the statement is evaluated again on a newer snapshot, `conflict_retries` times; after that it runs
inside the writer itself, where nothing can come first. BEGIN … COMMIT works the same way with all its statements: the
whole transaction stands in one request and nothing of it was answered yet, so it can simply be run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sql import ddl, users
from sql.command import Command
from sql.dml import WritePlan
from sql.errors import ExecutionError, InvalidInput, PermissionDenied, SqlError, Unsupported
from sql.identity import Identity, Role
from sql.live_statements import subscribe_to
from sql.results import StatementResult
from sql.rights import may_impersonate, may_read
from sql.row_expressions import Evaluation
from sql.running_transactions import RunningTransaction
from sql.services import Services, StatementContext, running_write
from sql.statements import (
    AlterNamespace,
    AlterTable,
    AlterUser,
    Begin,
    Commit,
    CreateNamespace,
    CreateTable,
    CreateUser,
    Delete,
    Describe,
    DropNamespace,
    DropTable,
    DropUser,
    ExecuteAs,
    Explain,
    Insert,
    Parsed,
    Query,
    Rollback,
    Show,
    Statement,
    SubscribeTo,
    Update,
    UseNamespace,
)
from sql.storage_errors import storage_errors, translated
from sql.topic_statements import (
    TOPIC_DEFINITIONS,
    TOPIC_MESSAGES,
    AckTopic,
    ConsumeFrom,
    Publish,
    ResetGroup,
    TopicDefinition,
)
from sql.topics import definitions as topic_definitions
from sql.topics import sources as topic_sources
from sql.topics import statements as topic_messages
from sql.view_statements import CreateView, DropView
from sql.views import definitions as view_definitions
from sql.write_targets import named_table, refuse_streams
from storage.errors import DuplicateKey, SchemaChanged, StorageError, WriteConflict
from storage.transaction import Transaction
from storage.views import ReadView
from storage.writer import WriteTransaction

DEFINITIONS = (CreateTable, AlterTable, DropTable, CreateNamespace, AlterNamespace, DropNamespace)
VIEWS = (CreateView, DropView)
ACCOUNTS = (CreateUser, AlterUser, DropUser)
WRITES = (Insert, Update, Delete)

T = TypeVar("T")


class Session:
    """The statements of one request and what they have answered so far. Use it from one thread."""

    def __init__(self, services: Services, batch: Sequence[Parsed], context: StatementContext) -> None:
        self._services = services
        self._engine = services.engine
        self._batch = batch
        self._context = context

    def run(self) -> list[StatementResult]:
        """Run every statement; raises SqlError with the number of the one that failed and how many took effect."""
        self._check_batch()
        results: list[StatementResult] = []
        while len(results) < len(self._batch):
            position = len(results)
            statement = self._batch[position].statement
            if isinstance(statement, Begin):
                results += self._transaction(position)
                continue
            with numbered(position, applied=position):
                if isinstance(statement, (Commit, Rollback)):
                    word = type(statement).__name__.upper()
                    raise ExecutionError(f"Invalid operation: {word} without BEGIN")
                results.append(self.autocommit(self._batch[position]))
        return results

    def run_all_but_last(self) -> None:
        """Run every statement but the last, for a result that is streamed."""
        self._check_batch()
        rest = Session(self._services, self._batch[:-1], self._context)
        rest.run()

    def in_transaction_at_end(self) -> bool:
        """Whether the last statement stands between BEGIN and COMMIT."""
        is_open = False
        for parsed in self._batch[:-1]:
            if isinstance(parsed.statement, (Begin, Commit, Rollback)):
                is_open = isinstance(parsed.statement, Begin)
        return is_open

    def context_of(self, parsed: Parsed) -> StatementContext:
        """The context that a statement runs in: the request's, or that of its EXECUTE AS USER."""
        return self._enter(parsed)[1]

    # --- before anything has run ---------------------------------------------------------------------------------

    def _check_batch(self) -> None:
        """Rights that do not depend on data: EXECUTE AS USER is allowed or refused before any statement runs."""
        for position, parsed in enumerate(self._batch):
            statement = parsed.statement.inner if isinstance(parsed.statement, Explain) else parsed.statement
            if isinstance(statement, ExecuteAs):
                with numbered(position, applied=0):
                    self._impersonated(statement)

    def _impersonated(self, statement: ExecuteAs) -> StatementContext:
        """The context of EXECUTE AS USER: the named user with the role `user`, whatever the stored role."""
        caller = self._context.identity
        with storage_errors(), self._engine.snapshot(purpose="execute as user") as snapshot:
            allowed = may_impersonate(caller, statement.user, snapshot)
        if not allowed:
            raise PermissionDenied(
                f"Permission denied: role {caller.role.value} may not execute as user '{statement.user}'"
            )
        inner = statement.inner
        refused = (*ACCOUNTS, Begin, Commit, Rollback, UseNamespace, ExecuteAs, SubscribeTo)
        forbidden = isinstance(inner, Command) and not inner.impersonable
        if forbidden or isinstance(inner, (*refused, *TOPIC_DEFINITIONS, *TOPIC_MESSAGES)):
            raise InvalidInput("EXECUTE AS USER takes one query, definition, INSERT, UPDATE, DELETE, SHOW or DESCRIBE")
        return self._context.as_user(Identity(user=statement.user, role=Role.USER))

    # --- one statement -------------------------------------------------------------------------------------------

    def autocommit(self, parsed: Parsed) -> StatementResult:
        """Run one statement as its own transaction."""
        statement, context = self._enter(parsed)
        context.control.check()
        if isinstance(statement, DEFINITIONS):
            definition = statement
            result = self._commit(lambda writer: self._define(definition, writer, context))
        elif isinstance(statement, VIEWS):
            of_view = statement
            result = self._commit(lambda writer: self._define_view(of_view, writer, context))
        elif isinstance(statement, TOPIC_DEFINITIONS):
            of_topic = statement
            result = self._commit(lambda writer: self._define_topic(of_topic, writer, context))
        elif isinstance(statement, Command):
            result = statement.run(context, self._services)
        elif isinstance(statement, TOPIC_MESSAGES):
            result = topic_messages.run(statement, context, self._services)
        elif isinstance(statement, ACCOUNTS):
            with storage_errors(), self._engine.snapshot(purpose="accounts") as snapshot:
                mutation = users.prepare(statement, snapshot, context.identity, self._services.passwords)
            result = self._commit(mutation)
        elif isinstance(statement, WRITES):
            result = self._write(statement, parsed, context)
        else:
            with storage_errors(), self._services.snapshot(context) as snapshot:
                result = self._read(statement, parsed, snapshot, context)
        result.as_user = context.identity.user
        return result

    def _define(
        self, statement: ddl.DefinitionStatement, writer: WriteTransaction, context: StatementContext
    ) -> StatementResult:
        services = self._services
        evaluation = Evaluation(services.binding(writer, context), running_write(services, context))
        result = ddl.run(statement, writer, context, evaluation)
        if isinstance(statement, AlterTable):
            altered = writer.catalog.table(statement.table.namespace or context.namespace, statement.table.name)
            if altered is not None:
                topic_sources.check_bound(altered, writer.catalog, services.binding(writer, context))
                view_definitions.refresh_views(altered, writer, services.binding(writer, context))
        return result

    def _define_topic(
        self, statement: TopicDefinition, writer: WriteTransaction, context: StatementContext
    ) -> StatementResult:
        services = self._services
        binding = services.binding(writer, context)
        return topic_definitions.run(statement, writer, context, binding, services.topics.settings)

    def _define_view(
        self, statement: CreateView | DropView, writer: WriteTransaction, context: StatementContext
    ) -> StatementResult:
        return view_definitions.run(statement, writer, context, self._services.binding(writer, context))

    def _enter(self, parsed: Parsed) -> tuple[Statement, StatementContext]:
        statement, context = parsed.statement, self._context
        if isinstance(statement, ExecuteAs):
            return statement.inner, self._impersonated(statement)
        return statement, context

    def _read(self, statement: Statement, parsed: Parsed, view: ReadView, context: StatementContext) -> StatementResult:
        """Run a statement that changes nothing."""
        services = self._services
        if isinstance(statement, Query):
            return services.query(statement, parsed, view, context)
        if isinstance(statement, UseNamespace):
            if statement.name != "system" and view.catalog.namespace(statement.name) is None:
                raise ExecutionError(f"Not found: Namespace '{statement.name}' does not exist")
            return StatementResult(
                message=f"Namespace switched to '{statement.name}'. The server keeps no session: "
                "send it as namespace_id with later requests."
            )
        if isinstance(statement, (Show, Describe)):
            return services.show(statement, view, context)
        if isinstance(statement, SubscribeTo):
            return subscribe_to(statement, view, context, services)
        if isinstance(statement, Explain):
            inner = statement.inner
            if isinstance(inner, ExecuteAs):
                return services.explain(inner.inner, statement.analyze, view, self._impersonated(inner))
            return services.explain(inner, statement.analyze, view, context)
        raise ExecutionError(f"Invalid operation: {type(statement).__name__} cannot run here")

    # --- writes --------------------------------------------------------------------------------------------------

    def _write(self, statement: Insert | Update | Delete, parsed: Parsed, context: StatementContext) -> StatementResult:
        """Run INSERT, UPDATE or DELETE as its own transaction."""
        table = None
        for _ in range(self._services.limits.conflict_retries):
            context.control.check()
            with storage_errors(), self._services.snapshot(context) as snapshot:
                plan = self._plan(statement, parsed, snapshot, context)
                table = plan.table
                if plan.keyed:
                    break
                transaction = Transaction(snapshot)
                result = self._services.write(plan, transaction, context)
                if not transaction.staged_rows:
                    return result
                try:
                    self._engine.commit_sync(transaction.apply, weight=transaction.staged_rows)
                except (WriteConflict, SchemaChanged, DuplicateKey):
                    continue  # a duplicate that another commit brought: the next run sees it, and says so
                return result

        def inside(writer: WriteTransaction) -> StatementResult:
            again = self._plan(statement, parsed, writer, context)
            transaction = Transaction(writer)
            answer = self._services.write(again, transaction, context)
            transaction.apply(writer)
            return answer

        try:
            return self._engine.commit_sync(inside, weight=1 if table is None else plan.weight)
        except StorageError as error:
            raise translated(error, table) from error

    def _plan(
        self, statement: Insert | Update | Delete, parsed: Parsed, view: ReadView, context: StatementContext
    ) -> WritePlan:
        if context is not self._context:
            self._refuse_shared(statement, view)
        return self._services.plan_write(statement, parsed, view, context)

    def _refuse_shared(self, statement: Insert | Update | Delete, view: ReadView) -> None:
        """EXECUTE AS USER writes no SHARED table. Who may not know of the table hears "permission denied" as ever."""
        table = named_table(statement.ast, view.catalog, self._context.namespace)
        if table is not None and not table.per_user and may_read(self._context.identity.role, table):
            raise ExecutionError(
                f"EXECUTE AS USER is not allowed on SHARED tables (table '{table.full_name}'). "
                "AS USER impersonation is only supported for USER and STREAM tables."
            )

    def _commit(self, work: Callable[[WriteTransaction], T]) -> T:
        with storage_errors():
            return self._engine.commit_sync(work)

    # --- BEGIN … COMMIT ------------------------------------------------------------------------------------------

    def _transaction(self, start: int) -> list[StatementResult]:
        """Run BEGIN at `start` up to its COMMIT or ROLLBACK; the results of all of them."""
        context = self._context
        with self._services.transactions.running(context.identity.user, context.control.request_id) as entry:
            return self._run_transaction(start, entry)

    def _run_transaction(self, start: int, entry: RunningTransaction) -> list[StatementResult]:
        limits = self._services.limits
        self._context.control.check()
        for _ in range(limits.conflict_retries):
            with numbered(start, applied=start), storage_errors(), self._services.snapshot(self._context) as snapshot:
                transaction = Transaction(snapshot)
                results, keep = self._stage(start, transaction, entry)
                if not keep or not transaction.staged_rows:
                    return results
                try:
                    self._engine.commit_sync(transaction.apply, weight=transaction.staged_rows)
                except (WriteConflict, SchemaChanged, DuplicateKey):
                    continue
                return results

        def inside(writer: WriteTransaction) -> list[StatementResult]:
            transaction = Transaction(writer)
            answers, apply = self._stage(start, transaction, entry)
            if apply:
                transaction.apply(writer)
            return answers

        with numbered(start, applied=start):
            return self._commit(inside)

    def _stage(
        self, start: int, transaction: Transaction, entry: RunningTransaction
    ) -> tuple[list[StatementResult], bool]:
        """Run the statements of a transaction; their results, and whether it ends in COMMIT."""
        number = self._services.functions.uuid_v7()
        entry.begin(str(number), transaction)
        user = self._context.identity.user
        results = [StatementResult(message=f"Transaction started ({number})", as_user=user)]
        deadline = time.monotonic() + self._services.limits.transaction_timeout
        for position in range(start + 1, len(self._batch)):
            parsed = self._batch[position]
            with numbered(position, applied=start):
                self._context.control.check()
                entry.touch()
                if time.monotonic() > deadline:
                    raise ExecutionError("Invalid operation: the transaction ran too long and was rolled back")
                if isinstance(parsed.statement, Begin):
                    raise ExecutionError("Conflict: a transaction is open already; BEGIN cannot be nested")
                if isinstance(parsed.statement, (Commit, Rollback)):
                    committed = isinstance(parsed.statement, Commit)
                    word = "committed" if committed else "rolled back"
                    if committed:
                        entry.commits()
                    results.append(StatementResult(message=f"Transaction {word} ({number})", as_user=user))
                    return results, committed
                results.append(self._staged(position, start, transaction))
                if transaction.staged_bytes > self._services.limits.max_transaction_bytes:
                    limit = self._services.limits.max_transaction_bytes
                    raise ExecutionError(f"Invalid operation: the transaction holds more than {limit} bytes")
        raise OpenTransaction("Request completed with an open explicit transaction; rolled back automatically")

    def _staged(self, position: int, start: int, transaction: Transaction) -> StatementResult:
        """Run one statement, the one at `position`, inside the transaction that began at `start`."""
        parsed = self._batch[position]
        statement, context = self._enter(parsed)
        if isinstance(statement, (*DEFINITIONS, *VIEWS, *ACCOUNTS, *TOPIC_DEFINITIONS, Command)):
            raise Unsupported(
                "Definitions and accounts cannot be changed inside BEGIN … COMMIT, and nothing be administered; "
                "run the statement outside of it."
            )
        if isinstance(statement, (ConsumeFrom, ResetGroup)):
            raise Unsupported(
                "CONSUME and RESET CONSUMER GROUP cannot run inside BEGIN … COMMIT, because what they do to a group "
                "takes effect at once; run the statement outside of it."
            )
        if isinstance(statement, (Query, *WRITES)):
            refuse_streams(statement.ast, transaction.catalog, context.namespace)
        if isinstance(statement, WRITES):
            plan = self._plan(statement, parsed, transaction, context)
            try:
                result = self._services.write(plan, transaction, context)
            except StorageError as error:
                raise translated(error, plan.table) from error
        elif isinstance(statement, (AckTopic, Publish)):
            settings = self._services.topics.settings
            with storage_errors():
                prepared = topic_messages.prepare(statement, transaction.catalog, context, settings)

            def work(writer: WriteTransaction) -> None:
                with numbered(position, applied=start), storage_errors():
                    prepared.work(writer)

            transaction.also(work, prepared.size)
            result = prepared.result
        else:
            result = self._read(statement, parsed, transaction, context)
        result.as_user = context.identity.user
        return result


class OpenTransaction(ExecutionError):
    """The request ended inside BEGIN."""


@contextmanager
def numbered(position: int, *, applied: int) -> Iterator[None]:
    """Say of an error which statement (position from 0) it came from and how many before it took effect.

    Execution errors get the prefix `Statement N failed: `, as clients know it.
    """
    try:
        yield
    except SqlError as error:
        if error.statement is None:
            error.statement = position + 1
            error.applied = applied
            if type(error) is ExecutionError:
                error.message = f"Statement {position + 1} failed: {error.message}"
                error.args = (error.message,)
        raise
