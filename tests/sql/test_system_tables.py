"""System tables, SHOW and DESCRIBE: their columns as the reference has them, and their rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest

from sql.dialect import parse_batch
from sql.duck import DuckOptions, DuckPool
from sql.errors import PermissionDenied, TableNotFound
from sql.identity import Identity
from sql.live.subscription import LiveRequest, Subscription
from sql.query import QueryRuntime
from sql.results import ResultColumn, StatementResult
from sql.running_transactions import RunningTransaction
from sql.show import describe, show
from sql.statements import Describe, Show
from sql.system_rows import LogLine, NodeFigures, SessionRow
from sql.system_tables import Sought, SystemContext, default_registry
from sql.topics.messages import Message
from storage.catalog import AccessLevel, ColumnDef, SchemaVersion, TableKind, UserDef
from storage.topic_definitions import Operation, TopicDef
from storage.transaction import Transaction
from storage.types import BIGINT, INT, TEXT, decimal
from tests.sql.fake_view import FakeView
from tests.sql.query_support import ALICE, BOB, DBA, ROOT, World, table

REFERENCE = {
    "users": "user_id, password_hash, role, email, auth_type, auth_data, storage_mode, storage_id, "
    "failed_login_attempts, locked_until, last_login_at, created_at, updated_at, last_seen, deleted_at",
    "namespaces": "namespace_id, name, created_at, options, table_count",
    "schemas": "table_id, table_name, namespace_id, table_type, created_at, schema_version, columns, table_comment, "
    "updated_at, options, access_level, is_latest, storage_id, use_user_storage",
    "tables": "namespace_id, table_name, table_type, storage_id, version, options, comment, updated_at, created_at",
    "columns": "namespace_id, table_name, version, column_id, column_name, comment, data_type, default_value, ordinal, "
    "nullable, primary_key, primary_key_pos",
    "live": "live_id, connection_id, subscription_id, namespace_id, table_name, user_id, query, options, status, "
    "created_at, last_update, changes, node_id, last_ping_at",
    "topic_messages": "topic_id, partition_id, offset, key, payload, timestamp_ms, user_id, op",
    "sessions": "session_id, backend_pid, current_schema, state, transaction_id, transaction_state, "
    "transaction_has_writes, client_addr, transport, opened_at, last_seen_at, last_method",
    "transactions": "transaction_id, owner_id, origin, state, age_ms, idle_ms, write_count, write_bytes, "
    "touched_tables_count, snapshot_commit_seq",
    "server_logs": "timestamp, level, thread, target, line, message",
    "cluster": "cluster_id, node_id, role, status, rpc_addr, api_addr, is_self, is_leader, groups_leading, "
    "total_groups, current_term, last_applied_log, leader_last_log_index, snapshot_index, catchup_progress_pct, "
    "replication_lag, hostname, version, memory_mb, memory_usage_mb, cpu_usage_percent, uptime_seconds, uptime_human, "
    "os, arch",
    "cluster_groups": "group_id, cluster_id, node_id, group_type, current_term, vote, last_log_index, last_applied, "
    "snapshot, purged, committed, state, current_leader, millis_since_quorum_ack",
    "settings": "name, value, description, category",
    "stats": "metric_name, metric_value",
    "datatypes": "arrow_type, kalam_type, sql_name, description",
    "topics": "topic_id, name, alias, partitions, retention_seconds, retention_max_bytes, routes, created_at, "
    "updated_at",
    "topic_offsets": "topic_id, group_id, partition_id, last_acked_offset, updated_at",
}
OWN = {
    "topic_offsets": "position, next_offset, lag, claims, pending",
    "sessions": "user_id",
    "transactions": "user_id",
    "server_logs": "request_id",
}
"""Columns of ours, behind those of the reference."""
NOTES = msgspec.structs.replace(
    table(1, "notes", [("id", BIGINT), ("body", TEXT), ("price", decimal(8, 2))]),
    schema_version=2,
    history=(SchemaVersion(1, (ColumnDef(1, "id", INT, nullable=False),)),),
    created_at=1_000_000,
)
STAFF = table(2, "staff", [("id", BIGINT)], kind=TableKind.SHARED, access=AccessLevel.DBA)
USERS = {
    ("user", "ann"): UserDef("ann", "user", password_hash="$argon2id$x", email="ann@example.org"),
    ("user", "svc"): UserDef("svc", "service"),
}


@dataclass
class Caller:
    identity: Identity
    namespace: str = "default"


SESSION = SessionRow(
    session_id="r1", user_id="alice", state="active", client_addr="127.0.0.1", transport="http", opened_at=5,
    last_seen_at=6, last_method="POST /v1/api/sql",
)  # fmt: skip
NODE = NodeFigures(
    api_addr="127.0.0.1:2900", hostname="here", version="1", machine_memory_mb=100, memory_usage_mb=10,
    cpu_usage_percent=1.5, uptime_seconds=61, uptime_human="0d 0h 1m 1s", os="linux", arch="x86_64",
    first_retained_seq=3,
)  # fmt: skip


class Messages:
    """A topic with one message, in place of `BrowsedTopics`."""

    def messages(self, view: object, sought: Sought, *, bodies: bool) -> list[tuple[TopicDef, Message]]:
        message = Message(0, 4, "k", b"{}" if bodies else b"", 2_000, "alice", Operation.UPDATE, 0, None)
        return [(TopicDef(5, "default", "orders"), message)] if sought.admits("default.orders", 0) else []


@dataclass(frozen=True)
class FollowedTable:
    """A live query, as far as system.live looks at it."""

    table_id: int = 1
    columns: tuple[ResultColumn, ...] = ()


def subscription() -> Subscription:
    request = LiveRequest("select * from app.notes", (), "default", ALICE, "s1", "c1")
    return Subscription(None, request, FollowedTable(), None, 0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    view = FakeView([NOTES, STAFF], USERS, [TopicDef(5, "default", "orders")])
    view.put(NOTES, "alice", [(1, "x", None), (2, "y", None)])
    running = RunningTransaction("alice", "r1")
    running.begin("t1", Transaction(view))  # type: ignore[arg-type]
    world = World(view, DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1)))
    world.runtime = QueryRuntime(world.pool, world.runtime.functions, lambda identity: SystemContext(
        identity, settings=lambda: [("server.port", "2900", "Port", "server")], stats=lambda: {"commits": "7"},
        live=lambda: [subscription()], sessions=lambda: [SESSION], transactions=lambda: [running],
        logs=lambda: [LogLine(1, "info", "MainThread", "headrace", 7, "hello", None)], node=lambda: NODE,
        topics=Messages(),  # type: ignore[arg-type]
    ))  # fmt: skip
    yield world
    world.pool.close()


def command(world: World, text: str, identity: Identity = ALICE) -> StatementResult:
    statement = parse_batch(text)[0].statement
    if isinstance(statement, Describe):
        return describe(statement, world.view, Caller(identity), world.system)
    assert isinstance(statement, Show)
    return show(statement, world.view, Caller(identity), world.system)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_columns_are_those_of_the_reference(world: World, name: str) -> None:
    result = world.run(f"select * from system.{name}", identity=ROOT)
    assert ", ".join(result.column_names) == ", ".join(filter(None, (REFERENCE[name], OWN.get(name))))
    assert result.num_rows > 0


def test_every_registered_table_can_be_read(world: World) -> None:
    for provider in default_registry():
        plan = world.bind(f"select * from {provider.full_name}", identity=ROOT)
        result = world.run(f"select * from {provider.full_name}", identity=ROOT)
        assert [c.name for c in plan.columns] == [c.name for c in provider.columns]
        assert [c.type for c in plan.columns] == [c.type for c in provider.columns]
        assert result.num_rows >= 0


def test_rows(world: World) -> None:
    def rows(text: str) -> list[tuple[object, ...]]:
        return world.rows(text, identity=DBA)

    assert rows("select user_id, password_hash, role, email from system.users order by 1") == [
        ("ann", "***", "user", "ann@example.org"), ("svc", None, "service", None),
    ]  # fmt: skip
    ours = sum(provider.namespace == "system" for provider in default_registry())
    assert rows("select namespace_id, table_count from system.namespaces") == [("default", 2), ("system", ours)]
    assert rows("select table_name, version from system.tables order by 1") == [("notes", 2), ("staff", 1)]
    columns = "column_name, data_type, primary_key, primary_key_pos"
    assert rows(f"select {columns} from system.columns where table_name = 'notes'") == [
        ("id", "BIGINT", True, 1), ("body", "TEXT", False, None), ("price", "DECIMAL(8,2)", False, None),
    ]  # fmt: skip
    assert rows("select schema_version, is_latest from system.schemas where table_name = 'notes' order by 1") == [
        (1, False), (2, True),
    ]  # fmt: skip
    assert rows("select * from system.settings") == [("server.port", "2900", "Port", "server")]
    assert rows("select metric_value from system.stats where metric_name = 'commits'") == [("7",)]
    joined = "system.tables t join system.columns c using (table_name)"
    assert rows(f"select table_name, count(*) from {joined} group by all order by 1") == [
        ("notes", 3), ("staff", 1),
    ]  # fmt: skip


def test_rows_of_the_server(world: World) -> None:
    def rows(text: str) -> list[tuple[object, ...]]:
        return world.rows(text, identity=DBA)

    assert rows(
        "select session_id, transaction_id, transaction_state, transaction_has_writes from system.sessions"
    ) == [("r1", "t1", "open_read", False)]
    assert rows("select transaction_id, owner_id, user_id, write_count from system.transactions") == [
        ("t1", "r1", "alice", 0)
    ]
    seq = world.view.seq
    assert rows("select node_id, is_leader, last_applied_log, memory_usage_mb from system.cluster") == [
        (1, True, seq, 10)
    ]
    assert rows("select purged, committed, current_leader from system.cluster_groups") == [(2, seq, 1)]
    assert rows("select level, line, message from system.server_logs") == [("info", 7, "hello")]
    assert rows("select offset, key, payload, timestamp_ms, op from system.topic_messages") == [
        (4, "k", b"{}", 2, "update")
    ]
    assert rows("select count(*) from system.topic_messages where topic_id = 'default.others'") == [(0,)]


def test_show_and_describe(world: World) -> None:
    shown = command(world, "show tables")
    assert [column.name for column in shown.columns] == REFERENCE["schemas"].split(", ")
    assert shown.table is not None
    assert shown.table.column("table_name").to_pylist() == ["notes"]
    assert command(world, "show tables in nowhere").row_count == 0
    assert command(world, "show tables", DBA).row_count == 2
    namespaces = command(world, "show namespaces")
    assert namespaces.table is not None
    assert namespaces.table.column("table_count").to_pylist() == [1, 0]
    described = command(world, "describe table notes")
    assert ", ".join(column.name for column in described.columns) == (
        "column_name, ordinal_position, column_id, data_type, is_nullable, is_primary_key, column_default, "
        "column_comment, schema_version"
    )
    assert described.table is not None
    assert described.table.column("column_name").to_pylist() == ["id", "body", "price"]
    assert described.table.column("is_nullable").to_pylist() == [False, True, True]
    assert command(world, "describe table notes history").row_count == 4
    assert command(world, "show columns from notes").row_count == 3
    with pytest.raises(PermissionDenied):
        command(world, "describe table staff")
    with pytest.raises(TableNotFound):
        command(world, "describe table nots")
    with pytest.raises(PermissionDenied):
        command(world, "describe table system.users")
    assert command(world, "describe table system.users", ROOT).row_count == 15


def test_stats_count_the_callers_rows(world: World) -> None:
    followed = [subscription()]
    for identity, rows, streams in ((ALICE, 2, 1), (BOB, 0, 0), (ROOT, 0, 0)):
        statement = parse_batch("show stats for table notes")[0].statement
        assert isinstance(statement, Show)
        stats = show(statement, world.view, Caller(identity), world.system, lambda: followed)
        assert stats.table is not None
        assert stats.table.to_pylist() == [{
            "table_name": "notes", "namespace": "default", "schema_version": 2, "logical_rows": rows,
            "flushed_segments": 0, "active_streams": streams,
            "memory_bytes": world.view.stored_bytes(NOTES, identity.user),
        }]  # fmt: skip


def test_counting_tables_lists_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(world.view.catalog), "tables", None)
    assert world.rows("select table_count from system.namespaces where name = 'default'", identity=DBA) == [(2,)]
