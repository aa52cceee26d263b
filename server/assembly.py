"""Puts the rooms together: from a configuration to an engine, a database, authentication and the application."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from starlette.types import ASGIApp

from server.account_watch import AccountWatch
from server.active import ActiveRequests
from server.app import create_app
from server.auth import service
from server.auth.bootstrap import bootstrap
from server.auth.routes import routes as auth_routes
from server.auth.secret import load_or_create_secret
from server.config import Config, settings_of
from server.dba_sampler import DbaSampler, create_dba_tables
from server.exchange import client_of_current, current_request_id
from server.figures import AccountCount, node_figures, numbers_of, texts_of
from server.live.events import routes as event_routes
from server.live.limits import UserSubscriptions
from server.live.service import LiveService, session_options
from server.live.upgrade import Upgrades
from server.live.urls import WS_PATH, WebSocketUrls
from server.log_ring import LogRing
from server.middleware.client_address import ClientAddresses
from server.middleware.rate_limit import RateLimits
from server.process_figures import ProcessFigures
from server.routes.metrics import MetricsRoute
from server.session_list import session_rows
from server.state import AppState
from sql.audit_log import AuditSettings
from sql.database import Database
from sql.duck import DuckOptions, bound_process_memory
from sql.exports.definitions import ExportSettings
from sql.jobs.settings import JobSettings
from sql.limits import SqlLimits
from sql.live.settings import LiveSettings
from sql.rendering import BigintMode
from sql.storages.filesystems import RemoteTimeouts
from sql.storages.policies import FlushSettings
from sql.system_rows import ServerFacts
from sql.topics.settings import TopicSettings
from sql.user_cleanup import UserCleanupSettings
from sql.users import PasswordSettings
from sql.vectors.settings import VectorSettings
from storage.blobs import open_blobs
from storage.engine import StorageEngine
from storage.file_store import FileStore
from storage.options import StorageOptions
from storage.seams import SYSTEM_CLOCK


@dataclass(slots=True)
class Assembly:
    """An application ready to be served."""

    app: ASGIApp
    limits: RateLimits
    needs_setup: bool
    live: LiveService
    stop_waiting: Callable[[], None]
    """Ends the answers that would not end by themselves soon: live queries, and consumers that wait."""


def storage_options(config: Config) -> StorageOptions:
    """Return what the configuration means for the storage engine."""
    return StorageOptions(
        max_bytes=config.storage.max_bytes,
        queue_works=config.storage.queue_works,
        lease_seconds=config.storage.snapshot_lease_seconds,
        cold_cache_bytes=config.storage.cold_cache_bytes,
        cold_grace_seconds=config.storage.cold_grace_seconds,
        retention_seconds=config.retention.commit_log_seconds,
        retention_bytes=config.retention.commit_log_bytes,
        maintenance_seconds=config.retention.interval_seconds,
        stream_eviction_seconds=config.stream.eviction_interval_seconds,
    )


def sql_limits(config: Config) -> SqlLimits:
    """Return what the configuration means for the SQL layer."""
    execution = config.execution
    return SqlLimits(
        max_sql_bytes=config.limits.max_sql_bytes,
        max_parameters=execution.max_parameters,
        max_parameter_bytes=execution.max_parameter_size_bytes,
        max_result_rows=config.limits.max_result_rows,
        statement_timeout=execution.handler_timeout_seconds,
        stream_timeout=execution.stream_timeout_seconds,
        transaction_timeout=execution.transaction_timeout_seconds,
        max_transaction_bytes=execution.max_transaction_buffer_bytes,
        plan_cache_entries=execution.sql_plan_cache_max_entries,
        workers=config.performance.worker_max_blocking_threads,
        max_waiting=execution.max_waiting,
    )


def duck_options(config: Config) -> DuckOptions:
    """Return what the configuration means for the query engine."""
    duckdb = config.duckdb
    return DuckOptions(
        connections=duckdb.connections,
        threads=duckdb.threads,
        memory_bytes=duckdb.memory_limit_bytes,
        temp_bytes=duckdb.max_temp_bytes,
        wait_seconds=duckdb.wait_seconds,
    )


def live_settings(config: Config, folder: Path) -> LiveSettings:
    """Return what the configuration means for live queries; large snapshots wait in files in `folder`."""
    live = config.live
    return LiveSettings(
        batch_size=live.batch_size,
        max_batch_size=live.max_batch_size,
        snapshot_memory_bytes=live.snapshot_memory_bytes,
        snapshot_folder=folder,
        idle_seconds=live.snapshot_idle_seconds,
        workers=live.workers,
    )


def topic_settings(config: Config) -> TopicSettings:
    """Return what the configuration means for topics."""
    topics = config.topics
    return TopicSettings(
        visibility_timeout=topics.visibility_timeout_secs,
        max_visibility_timeout=topics.max_visibility_timeout_secs,
        max_deliveries=topics.max_deliveries,
        max_poll_seconds=topics.max_poll_seconds,
        max_batch_messages=topics.max_batch_messages,
        max_batch_bytes=topics.max_batch_bytes,
        max_message_bytes=topics.max_message_bytes,
        max_key_bytes=topics.max_key_bytes,
        max_waiting=topics.max_waiting,
        retention_seconds=topics.default_retention_seconds,
        retention_bytes=topics.default_retention_bytes,
    )


def vector_settings(config: Config, folder: Path) -> VectorSettings:
    """Return what the configuration means for vector indexes; their files lie in `folder`."""
    return VectorSettings(folder, config.vectors.memory_bytes, config.vectors.min_rows)


def job_settings(config: Config) -> JobSettings:
    """Return what the configuration means for jobs."""
    jobs = config.jobs
    return JobSettings(
        max_concurrent=jobs.max_concurrent,
        max_waiting=jobs.max_waiting,
        max_retries=jobs.max_retries,
        retry_backoff=jobs.retry_backoff_ms / 1000,
        retention=jobs.retention_seconds,
        max_finished=jobs.max_finished,
        cleanup_interval=jobs.cleanup_interval_seconds,
        stop=jobs.stop_seconds,
    )


def open_files(config: Config, engine: StorageEngine, folder: Path) -> FileStore:
    """Open the place for files that the configuration names. Raises BlobError."""
    return FileStore(
        engine, open_blobs(config.files.storage, folder / "files"), per_folder=config.files.max_files_per_folder
    )


@asynccontextmanager
async def assemble(config: Config, engine: StorageEngine, folder: Path, address: str = "") -> AsyncIterator[Assembly]:
    """Make everything above the engine; on the way out it is closed, the engine stays open.

    `address` is where the server listens, if that is known.
    """
    process = ProcessFigures(SYSTEM_CLOCK.monotonic)
    if config.duckdb.process_memory_bytes:
        bound_process_memory(config.duckdb.process_memory_bytes)
    secret = load_or_create_secret(folder, config.auth.jwt_secret or None)
    limits = RateLimits(config.rate_limit, SYSTEM_CLOCK)
    options = service.options_of(config)
    needs_setup = await bootstrap(engine, options, config.auth.root_password or None)
    await create_dba_tables(engine)
    context = service.build(options, engine, secret, limits, SYSTEM_CLOCK)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(context.close)
        watch = AccountWatch(engine, context.cache)
        context.stop_watching = watch.close
        urls = WebSocketUrls(ClientAddresses(config.security.trusted_proxy_ranges))

        def last_heard(connection_id: str) -> int | None:
            return live.last_heard_us(connection_id)

        def numbers() -> dict[str, float]:
            counts = {"active_connections": limits.open, "active_connections_peak": limits.open_peak, **live.figures()}
            counts |= {f"files_{name}": value for name, value in msgspec.structs.asdict(files.stats()).items()}
            counts |= {"token_cache_size": len(context.cache)}
            return {**numbers_of(engine, process, config, accounts), **counts}

        def all_numbers() -> dict[str, float]:
            return {**numbers(), **database.figures()}

        def figures() -> dict[str, str]:
            return texts_of(process) | {name: str(value) for name, value in numbers().items()}

        accounts = AccountCount(engine)
        active = ActiveRequests()
        ring = LogRing(config.logging.memory_lines)
        logging.getLogger().addHandler(ring)
        stack.callback(logging.getLogger().removeHandler, ring)
        facts = ServerFacts(
            sessions=lambda: session_rows(active.running(), live.members(), SYSTEM_CLOCK, live.time()),
            logs=ring.lines,
            node=lambda: node_figures(engine, process, address or f"{config.server.host}:{config.server.port}"),
            request_id=current_request_id,
        )
        files = open_files(config, engine, folder)
        stack.callback(files.close)
        database = Database(
            engine,
            sql_limits(config),
            duck=duck_options(config),
            passwords=PasswordSettings(options.policy, options.parameters),
            settings=lambda: settings_of(config),
            stats=figures,
            temp_folder=folder / "tmp",
            bigint=BigintMode(config.wire.bigint),
            live=live_settings(config, folder / "tmp"),
            topics=topic_settings(config),
            jobs=job_settings(config),
            flush=FlushSettings(config.flush.check_interval_seconds),
            remote=RemoteTimeouts(
                config.storage.remote_timeouts.connect_timeout_secs, config.storage.remote_timeouts.request_timeout_secs
            ),
            ws_url=urls.of_current,
            last_heard=last_heard,
            files=files,
            audit=AuditSettings(config.audit.retention_days),
            user_cleanup=UserCleanupSettings(config.user_management.deletion_grace_period_days),
            client_ip=client_of_current,
            vectors=vector_settings(config, folder / "vectors"),
            facts=facts,
            exports=ExportSettings(
                folder / "exports", config.exports.retention_days * 86_400.0, config.exports.max_bytes
            ),
        )
        stack.callback(database.close)
        upgrades = Upgrades(config.security, context.cookies)
        live = LiveService(
            database.live,
            context.authenticator,
            limits,
            upgrades,
            session_options(config),
            UserSubscriptions(config.rate_limit.max_subscriptions_per_user),
            SYSTEM_CLOCK,
            BigintMode(config.wire.bigint),
            database.scope,
        )
        live.start()
        database.start()
        files.start()
        stack.push_async_callback(live.close)

        def accounts_changed(objects: Sequence[tuple[str, str]]) -> None:
            accounts.changed(objects)
            live.accounts_changed(objects)

        watch.on_change = accounts_changed
        if config.retention.enable_dba_stats:
            retention = config.retention
            sampler = DbaSampler(
                engine,
                all_numbers,
                SYSTEM_CLOCK,
                interval=retention.dba_stats_interval_seconds,
                days=retention.dba_stats_retention_days,
            )
            sampler.start()
            stack.push_async_callback(sampler.close)
        state = AppState(
            config=config,
            engine=engine,
            database=database,
            authenticator=context.authenticator,
            limits=limits,
            clock=SYSTEM_CLOCK,
            data_path=folder,
            process=process,
        )
        metrics = MetricsRoute(all_numbers, context.authenticator, database.topics.lags)
        more = [*auth_routes(context), *event_routes(live, upgrades, limits), metrics.route()]
        app = create_app(state, more, active=active, websocket_routes={WS_PATH: live})

        def stop_waiting() -> None:
            live.stop()
            database.topics.stop()

        yield Assembly(app, limits, needs_setup, live, stop_waiting)
