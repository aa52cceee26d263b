"""Database: the facade of the SQL layer. Requests come in as text and parameters, results go out as Arrow.

Three ways through, cheapest first. A statement whose shape is known and that needs no query engine starts on the
event loop (`sql.hot`): a point read straight from a snapshot, plain rows or a change by key as a work for the writer.
Everything else goes to a worker thread and runs there, all statements of the request in order (`sql.session`). Rows
that are streamed stay on the worker side until somebody takes the next batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sql.audit import Origin
from sql.audit_log import HOUR, MINUTE, AuditLog, AuditSettings
from sql.bulk import insert_file
from sql.cache import PlanCache
from sql.command import Command
from sql.diagnostics import shown_in
from sql.duck import DuckOptions, DuckPool
from sql.errors import InvalidSql, StorageUnavailable, Unsupported
from sql.functions import FunctionContext
from sql.hot import HotStatements
from sql.housekeeping import Housekeeping
from sql.identity import Identity
from sql.indexes import building as index_building
from sql.jobs import cleanup as job_cleanup
from sql.jobs.model import JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from sql.jobs.settings import JobSettings
from sql.lake import jobs as lake_jobs
from sql.lake.jobs import LakeUpkeep
from sql.lake.publishing import LakePublisher
from sql.limits import SqlLimits
from sql.live.hub import LiveHub
from sql.live.settings import LiveSettings
from sql.numbering import numbered
from sql.query import QueryRuntime
from sql.rendering import BigintMode
from sql.request import check_parameters, parse_request
from sql.results import ResultColumn, StatementResult
from sql.row_stream import ResultStream, Rows, open_rows, taken
from sql.services import Services, StatementContext, context_of
from sql.session import Session
from sql.statements import Describe, ExecuteAs, Parsed, Query, Show, Statement
from sql.storage_errors import storage_errors
from sql.storages import moving
from sql.storages.filesystems import RemoteTimeouts
from sql.storages.policies import FlushScheduler, FlushSettings
from sql.storages.registry import StorageRegistry
from sql.system_rows import ServerFacts
from sql.system_tables import SystemContext, own_tables
from sql.topics.browsing import BrowsedTopics
from sql.topics.hub import TopicHub
from sql.topics.router import SqlRouter
from sql.topics.settings import TopicSettings
from sql.user_cleanup import UserCleanup, UserCleanupSettings
from sql.users import PasswordSettings
from sql.vectors import jobs as vector_jobs
from sql.vectors.indexes import VectorIndexes
from sql.vectors.settings import VectorSettings
from sql.vectors.upkeep import VectorUpkeep
from sql.workers import CLOSING, THREADS, Control, Workers
from storage.blobs import BlobReader
from storage.engine import StorageEngine
from storage.file_store import FileStore

if TYPE_CHECKING:
    from sql.exports.definitions import ExportSettings
    from sql.files.downloads import FileRequest, StoredFile
    from sql.files.references import UploadedFile

DEFAULT_NAMESPACE = "default"
_KEPT_TREES = 500
_KEPT_CHARACTERS = 128 * 1024
_LONGEST_KEPT = 4 * 1024
"""Parsed queries that are remembered, the length of their texts together, and that of one."""
_READS = (Query, Show, Describe)

T = TypeVar("T")

Settings = Callable[[], Iterable[tuple[str, str, str, str]]]


def _only_reads(statement: Statement) -> bool:
    """Whether a statement changes nothing, so that nobody misses it when its client has gone."""
    return isinstance(statement, _READS) or (isinstance(statement, Command) and statement.reads_only)


class Database:
    """SQL over one storage engine. Made and used on one event loop.

    `bigint` must be the mode in which results are rendered. `settings` gives the rows of system.settings, `stats`
    further metrics for system.stats. Everything that a client can follow goes through `live`, consumers of topics come
    through `topics`; what becomes a message of a topic is decided here from now on. `ws_url` tells, on the event loop,
    where the client of the request under way finds the WebSocket, `client_ip` from which address it came; `last_heard`
    is that of `SystemContext`, `facts` what the server tells of itself.
    """

    def __init__(
        self,
        engine: StorageEngine,
        limits: SqlLimits | None = None,
        *,
        duck: DuckOptions | None = None,
        passwords: PasswordSettings | None = None,
        functions: FunctionContext | None = None,
        settings: Settings = tuple,
        stats: Callable[[], Mapping[str, str]] = dict,
        temp_folder: Path | None = None,
        bigint: BigintMode = BigintMode.AUTO,
        live: LiveSettings | None = None,
        topics: TopicSettings | None = None,
        jobs: JobSettings | None = None,
        flush: FlushSettings | None = None,
        remote: RemoteTimeouts | None = None,
        ws_url: Callable[[], str] = str,
        last_heard: Callable[[str], int | None] = lambda connection_id: None,
        files: FileStore | None = None,
        vectors: VectorSettings | None = None,
        facts: ServerFacts | None = None,
        exports: ExportSettings | None = None,
        audit: AuditSettings | None = None,
        user_cleanup: UserCleanupSettings | None = None,
        client_ip: Callable[[], str] = str,
    ) -> None:
        self.limits = limits or SqlLimits()
        self._ws_url = ws_url
        self._client_ip = client_ip
        facts = facts or ServerFacts()
        self._request_id = facts.request_id
        browsed = BrowsedTopics(engine, bigint)
        functions = functions or FunctionContext()
        self._pool = DuckPool(duck, functions, temp_folder)
        runtime = QueryRuntime(
            self._pool,
            functions,
            lambda identity: SystemContext(
                identity,
                settings=settings,
                stats=lambda: {**stats(), **{name: str(value) for name, value in self.figures().items()}},
                live=self.live.subscriptions,
                last_heard=last_heard,
                sessions=facts.sessions,
                transactions=lambda: self._services.transactions.all(),  # noqa: PLW0108  made after this
                logs=facts.logs,
                node=facts.node,
                topics=browsed,
                job_progress=self.jobs.progress_of,
                storage_base=self._services.storages.shown_base,
            ),
            VectorIndexes(vectors),
        )
        self._services = Services(
            engine,
            self.limits,
            self._pool,
            functions,
            own_tables(),
            runtime,
            passwords or PasswordSettings(),
            bigint=bigint,
        )
        self._services.files = files
        self.audit = self._services.audit = AuditLog(engine, audit)
        self._hot = HotStatements(self._services, bigint)
        self._parsed: PlanCache[list[Parsed]] = PlanCache(_KEPT_TREES, _KEPT_CHARACTERS)
        self._workers = Workers(self.limits.workers, self.limits.max_waiting)
        self.live = LiveHub(self._services, self._workers, live or LiveSettings(snapshot_folder=temp_folder))
        self._services.live = self.live
        self.topics = TopicHub(self._services, self._workers, topics)
        self._services.topics = self.topics
        self.vectors = self._services.vectors = VectorUpkeep(engine, runtime.vectors)
        self.vectors.watch()
        self.jobs = self._services.jobs = JobService(engine, jobs)
        job_cleanup.register(self.jobs, engine)
        index_building.register(self.jobs, engine)
        self._housekeeping = Housekeeping()
        self._housekeeping.add(MINUTE, self.audit.tick)
        self._housekeeping.add(HOUR, UserCleanup(engine, self.jobs, user_cleanup).look)
        self._register_backups(engine, files, exports)
        self._services.exports = exports
        self._housekeeping.add(HOUR, self._remove_old_exports)
        self._flushes = FlushScheduler(engine, self.jobs, flush)
        self._services.storages = engine.cold.resolver = StorageRegistry(engine, remote)
        self.lake = self._services.lake = LakePublisher(engine, self._services.storages)
        moving.register(self.jobs, engine, self.lake)
        lake_jobs.register(self.jobs, self.lake)
        self._housekeeping.add(MINUTE, LakeUpkeep(engine, self.jobs, self.lake).look)
        vector_jobs.register(self.jobs, self.vectors)
        self._router = engine.router = SqlRouter(self._services)

    def start(self) -> None:
        """Begin to run jobs, and to look after policies and what grows old. Raises StorageError."""
        self._remove_old_exports(at_start=True)
        index_building.resume(self.jobs, self._services.engine)
        self.jobs.start()
        self._housekeeping.start()
        self._flushes.start()

    def close(self) -> None:
        """Stop what runs, give the query engine back; waits for both, but not for ever: see `Workers.run`."""
        self._flushes.stop()
        self._housekeeping.stop()
        self.jobs.stop()
        self.live.stop()
        self.topics.stop()
        self.vectors.stop()
        self._workers.stop(StorageUnavailable("The server is shutting down."))
        self._workers.close()
        self.audit.close()
        self.vectors.close()
        closing = threading.Thread(target=self._close_engines, name=f"{THREADS}_closing", daemon=True)
        closing.start()
        closing.join(CLOSING)

    def _close_engines(self) -> None:
        self._pool.close()
        self._router.close()

    def _register_backups(self, engine: StorageEngine, files: FileStore | None, exports: ExportSettings | None) -> None:
        """Have jobs of backups and exports run; what does the work is imported when one does."""

        def backup(run: JobRun) -> str:
            from sql.backup.running import run_backup

            return run_backup(run, engine, files)

        def restore(run: JobRun) -> str:
            from sql.backup.running import run_restore

            return run_restore(run, engine)

        def export(run: JobRun) -> str:
            from sql.exports.running import run_export

            assert exports is not None
            return run_export(run, engine, files, exports)

        if exports is not None:
            self.jobs.register(JobType.USER_EXPORT, export)
        self.jobs.register(JobType.BACKUP, backup, lane=lambda _: "backup")
        self.jobs.register(JobType.RESTORE, restore, lane=lambda _: "backup")

    def _remove_old_exports(self, *, at_start: bool = False) -> None:
        exports = self._services.exports
        if exports is None or not exports.folder.is_dir():
            return  # nobody has exported anything
        from sql.exports.keeping import ExportKeeper

        keeper = ExportKeeper(self._services.engine, exports)
        if at_start:
            keeper.clear_away()
        keeper.remove_expired()

    def figures(self) -> dict[str, int]:
        """Figures of what statements, live queries, topics, jobs and storages do for system.stats, beside `stats`."""
        statements = {
            "active_transactions": len(self._services.transactions),
            "plan_cache_size": self._services.cached_plans,
            "server_workers_busy": self._workers.busy,
        }
        storages = self._services.storages.figures()
        return {**statements, **self.live.stats(), **self.topics.stats(), **self.jobs.figures(), **storages}

    # --- statements ----------------------------------------------------------------------------------------------

    async def execute(
        self, sql: str, params: Sequence[object] | None, namespace: str | None, identity: Identity
    ) -> list[StatementResult]:
        """Run all statements of a request. Raises SqlError; what it says of the statements before is exact."""
        values = params or ()
        scope = self.scope(namespace)
        hot = await self._hot.run(sql, values, scope, identity)
        if hot is not None:
            return [hot]
        control = Control(self.limits.statement_timeout)
        control.request_id = self._request_id()
        context = context_of(identity, scope, values, control, self._ws_url(), self._client_ip())

        def run() -> list[StatementResult]:
            with shown_in(sql):
                long = self._hot.run_long(sql, context)
                if long is not None:
                    return [long]
                batch = self._parse(sql, context)
                control.may_be_left = all(_only_reads(parsed.statement) for parsed in batch)
                results = Session(self._services, batch, context).run()
            if len(batch) == 1:
                with storage_errors():
                    self._hot.learn(sql, batch[0], context)
            return results

        return await self._workers.run(run, control)

    async def execute_with_files(
        self,
        sql: str,
        params: Sequence[object] | None,
        namespace: str | None,
        identity: Identity,
        uploads: Mapping[str, UploadedFile],
    ) -> list[StatementResult]:
        """Run a request that brings files, by the name of their part. Raises SqlError; then no file is kept."""
        from sql.files.upload import run_with_files  # only where files are used: an idle server is to be small

        store = self._services.files
        if store is None:
            raise Unsupported("This server has no place for files.")
        control = Control(self.limits.stream_timeout)
        control.request_id = self._request_id()
        context = self._context(identity, namespace, params, control)

        def run() -> list[StatementResult]:
            with shown_in(sql):
                return run_with_files(self._services, store, sql, context, uploads)

        return await self._workers.run(run, control)

    async def open_file(self, request: FileRequest, identity: Identity) -> tuple[StoredFile, BlobReader]:
        """The file that a download names, if the caller may read it, and its bytes: close them. Raises SqlError."""
        from sql.files.downloads import find_file, open_bytes

        origin = Origin(identity.user, self._client_ip())

        def run() -> tuple[StoredFile, BlobReader]:
            file = find_file(self._services, request, identity, origin)
            return file, open_bytes(self._services, file)

        return await asyncio.to_thread(run)

    async def find_export(self, user: str, export_id: str, identity: Identity) -> Path:
        """The file of an export, if the caller may have it. Raises SqlError."""
        from sql.exports.running import find_export

        services, now = self._services, self._services.functions.now_us()
        return await asyncio.to_thread(find_export, services.engine, services.exports, user, export_id, identity, now)

    def scope(self, namespace: str | None) -> str:
        """The request's namespace: as SQL folds names, capitals mean small letters unless there is one so spelt."""
        if not namespace:
            return DEFAULT_NAMESPACE
        folded = namespace.lower()
        if folded == namespace:
            return namespace
        with storage_errors(), self._services.engine.snapshot(purpose="namespace") as snapshot:
            return folded if snapshot.catalog.namespace(namespace) is None else namespace

    def _context(
        self, identity: Identity, namespace: str | None, params: Sequence[object] | None, control: Control
    ) -> StatementContext:
        """The context of the request under way."""
        return context_of(identity, self.scope(namespace), params or (), control, self._ws_url(), self._client_ip())

    def _parse(self, sql: str, context: StatementContext) -> list[Parsed]:
        """The statements of a request; checks that exactly the parameters that they use are there."""
        known = self._parsed.get((sql,), 0)
        if known is not None:
            check_parameters(known, len(context.params))
            return known
        batch = parse_request(sql, len(context.params), max_statements=self.limits.max_statements)
        if len(sql) <= _LONGEST_KEPT and len(batch) == 1 and isinstance(batch[0].statement, Query):
            self._parsed.put((sql,), 0, batch)  # nothing changes the tree of a query: binding copies it
        return batch

    # --- streams -------------------------------------------------------------------------------------------------

    async def stream(
        self, sql: str, params: Sequence[object] | None, namespace: str | None, identity: Identity
    ) -> ResultStream:
        """Run all statements of a request and stream the rows of the last one. Raises SqlError."""
        control = Control(self.limits.stream_timeout)
        control.request_id = self._request_id()
        context = self._context(identity, namespace, params, control)

        def start() -> tuple[Sequence[ResultColumn], Rows]:
            with shown_in(sql):
                return begin()

        def begin() -> tuple[Sequence[ResultColumn], Rows]:
            batch = self._parse(sql, context)
            control.may_be_left = all(_only_reads(parsed.statement) for parsed in batch)
            last = batch[-1]
            inner = last.statement.inner if isinstance(last.statement, ExecuteAs) else last.statement
            session = Session(self._services, batch, context)
            if not isinstance(inner, Query) or session.in_transaction_at_end():
                result = session.run()[-1]
                if result.table is None:
                    raise InvalidSql("The last statement has no rows to send in this format; ask for JSON.")
                return result.columns, (batch for batch in result.table.to_batches())
            session.run_all_but_last()
            with numbered(len(batch) - 1, applied=len(batch) - 1), storage_errors():
                return open_rows(self._services, inner, last, session.context_of(last, told=True))

        columns, rows = await self._workers.run(start, control)
        control.may_be_left = True  # what comes now only reads
        return ResultStream(columns, taken(rows, self._workers, control))

    # --- bulk ----------------------------------------------------------------------------------------------------

    async def ingest(self, namespace: str, table: str, file: Path, content_type: str, identity: Identity) -> int:
        """Insert all rows of a file into a table, or none; returns how many. Raises SqlError."""
        control = Control(self.limits.stream_timeout)
        context = context_of(identity, namespace, (), control)
        return await self._workers.run(lambda: insert_file(self._services, table, file, content_type, context), control)
