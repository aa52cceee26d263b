"""One request's statements, run in order on a worker thread: autocommit, transactions, EXECUTE AS USER.

What retries, and why nothing is half applied. A statement that writes is planned and evaluated over a snapshot, into a
`storage.Transaction`; the writer then checks that what it replaces is still current and applies it. When another
commit came first, the statement is evaluated again on a newer snapshot, `conflict_retries` times; after that it runs
inside the writer itself, where nothing can come first. BEGIN … COMMIT works the same way with all its statements: the
whole transaction stands in one request and nothing of it was answered yet, so it can simply be run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sql import users
from sql.audited import audited_account, audited_definition, run_command
from sql.command import Command
from sql.defining import DEFINITIONS, definition
from sql.dml import WritePlan
from sql.errors import ExecutionError, Unsupported
from sql.impersonation import Impersonation, enter, impersonating, refuse_shared
from sql.live_statements import subscribe_to
from sql.numbering import numbered
from sql.results import StatementResult
from sql.running_transactions import RunningTransaction
from sql.services import Services, StatementContext
from sql.statements import (
    AlterUser,
    Begin,
    Commit,
    CreateUser,
    Delete,
    Describe,
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
    TOPIC_MESSAGES,
    AckTopic,
    ConsumeFrom,
    Publish,
    ResetGroup,
)
from sql.topics import statements as topic_messages
from sql.write_targets import refuse_streams
from storage.errors import DuplicateKey, SchemaChanged, StorageError, WriteConflict
from storage.transaction import Transaction
from storage.views import ReadView
from storage.writer import WriteTransaction

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
        self._impersonations: list[Impersonation] = []
        """Those that the transaction under way has staged."""

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

    def context_of(self, parsed: Parsed, *, told: bool = False) -> StatementContext:
        """The context that a statement runs in: the request's, or that of its EXECUTE AS USER.

        Whoever runs the statement himself has it `told` to the audit log.
        """
        statement, context = self._enter(parsed)
        if told and context.subject is not None:
            Impersonation(statement, context, self._services).end(committed=False)
        return context

    # --- before anything has run ---------------------------------------------------------------------------------

    def _check_batch(self) -> None:
        """Rights that do not depend on data: EXECUTE AS USER is allowed or refused before any statement runs."""
        for position, parsed in enumerate(self._batch):
            statement = parsed.statement.inner if isinstance(parsed.statement, Explain) else parsed.statement
            if isinstance(statement, ExecuteAs):
                with numbered(position, applied=0):
                    self._impersonated(statement)

    def _impersonated(self, statement: ExecuteAs) -> StatementContext:
        """The context of EXECUTE AS USER."""
        return enter(statement, self._context, self._services)

    # --- one statement -------------------------------------------------------------------------------------------

    def autocommit(self, parsed: Parsed) -> StatementResult:
        """Run one statement as its own transaction."""
        statement, context = self._enter(parsed)
        context.control.check()
        with impersonating(statement, context, self._services) as impersonation:
            return self._autocommit(statement, parsed, context, impersonation)

    def _autocommit(
        self, statement: Statement, parsed: Parsed, context: StatementContext, impersonation: Impersonation | None
    ) -> StatementResult:
        if isinstance(statement, DEFINITIONS):
            work = definition(statement, context, self._services)
            also = None if impersonation is None else impersonation.stage
            result = self._commit(audited_definition(parsed, statement, context, work, also))
        elif isinstance(statement, Command):
            result = run_command(statement, parsed, context, self._services)
        elif isinstance(statement, TOPIC_MESSAGES):
            result = topic_messages.run(statement, context, self._services)
        elif isinstance(statement, ACCOUNTS):
            with storage_errors(), self._engine.snapshot(purpose="accounts") as snapshot:
                mutation = users.prepare(statement, snapshot, context.identity, self._services.passwords)
            result = self._commit(audited_account(statement, context, mutation))
        elif isinstance(statement, WRITES):
            result = self._write(statement, parsed, context, impersonation)
        else:
            with storage_errors(), self._services.snapshot(context) as snapshot:
                result = self._read(statement, parsed, snapshot, context)
        result.as_user = context.identity.user
        return result

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
                entered = self._impersonated(inner)
                if entered.subject is not None:
                    Impersonation(inner.inner, entered, services).end(committed=False)
                return services.explain(inner.inner, statement.analyze, view, entered)
            return services.explain(inner, statement.analyze, view, context)
        raise ExecutionError(f"Invalid operation: {type(statement).__name__} cannot run here")

    # --- writes --------------------------------------------------------------------------------------------------

    def _write(
        self,
        statement: Insert | Update | Delete,
        parsed: Parsed,
        context: StatementContext,
        impersonation: Impersonation | None,
    ) -> StatementResult:
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
                if impersonation is not None:
                    transaction.also(impersonation.stage)
                try:
                    self._engine.commit_sync(transaction.apply, weight=transaction.staged_rows)
                except (WriteConflict, SchemaChanged, DuplicateKey):
                    continue  # a duplicate that another commit brought: the next run sees it, and says so
                return result

        def inside(writer: WriteTransaction) -> StatementResult:
            again = self._plan(statement, parsed, writer, context)
            transaction = Transaction(writer)
            answer = self._services.write(again, transaction, context)
            if impersonation is not None and transaction.staged_rows:
                transaction.also(impersonation.stage)
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
            refuse_shared(statement, view, self._context)
        return self._services.plan_write(statement, parsed, view, context)

    def _commit(self, work: Callable[[WriteTransaction], T]) -> T:
        with storage_errors():
            return self._engine.commit_sync(work)

    # --- BEGIN … COMMIT ------------------------------------------------------------------------------------------

    def _transaction(self, start: int) -> list[StatementResult]:
        """Run BEGIN at `start` up to its COMMIT or ROLLBACK; the results of all of them."""
        committed = False
        try:
            user, request_id = self._context.identity.user, self._context.control.request_id
            with self._services.transactions.running(user, request_id) as entry:
                results, committed = self._run_transaction(start, entry)
        finally:
            for impersonation in self._impersonations:
                impersonation.end(committed=committed)
            self._impersonations.clear()
        return results

    def _run_transaction(self, start: int, entry: RunningTransaction) -> tuple[list[StatementResult], bool]:
        """The results, and whether what was staged was committed."""
        limits = self._services.limits
        self._context.control.check()
        for _ in range(limits.conflict_retries):
            with numbered(start, applied=start), storage_errors(), self._services.snapshot(self._context) as snapshot:
                transaction = Transaction(snapshot)
                results, keep = self._stage(start, transaction, entry)
                if not keep or not transaction.staged_rows:
                    return results, False
                try:
                    self._engine.commit_sync(transaction.apply, weight=transaction.staged_rows)
                except (WriteConflict, SchemaChanged, DuplicateKey):
                    continue
                return results, True

        def inside(writer: WriteTransaction) -> tuple[list[StatementResult], bool]:
            transaction = Transaction(writer)
            answers, apply = self._stage(start, transaction, entry)
            if apply:
                transaction.apply(writer)
            return answers, apply

        with numbered(start, applied=start):
            return self._commit(inside)

    def _stage(
        self, start: int, transaction: Transaction, entry: RunningTransaction
    ) -> tuple[list[StatementResult], bool]:
        """Run the statements of a transaction; their results, and whether it ends in COMMIT."""
        self._impersonations.clear()
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
        if isinstance(statement, (*DEFINITIONS, *ACCOUNTS, Command)):
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
        if context.subject is not None:
            self._impersonations.append(Impersonation(statement, context, self._services))
        if isinstance(statement, WRITES):
            plan = self._plan(statement, parsed, transaction, context)
            with storage_errors(plan.table):
                result = self._services.write(plan, transaction, context)
            if context.subject is not None:
                transaction.also(self._impersonations[-1].stage)
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
