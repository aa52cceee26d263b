"""The rest of section 9: exact columns of operational tables, of `dba` and `information_schema`; all read-only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, columns, error, ok, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import DENIED, EXECUTION, NO_TABLE, done, one, records, refused, shape

COLUMNS = {
    "storages": "storage_id, storage_name, description, storage_type, base_directory, credentials, config_json, "
    "shared_tables_template, user_tables_template, created_at, updated_at",
    "jobs": "job_id, job_type, status, leader_status, parameters, message, exception_trace, idempotency_key, queue, "
    "priority, retry_count, max_retries, memory_used, cpu_used, created_at, updated_at, started_at, finished_at, "
    "node_id, leader_node_id",
    "job_nodes": "job_id, node_id, status, error_message, created_at, started_at, finished_at, updated_at",
    "audit_log": "audit_id, timestamp, actor_user_id, action, target, details, ip_address, subject_user_id",
    "manifest": "cache_key, namespace_id, table_name, scope, etag, last_refreshed, last_accessed, in_memory, "
    "sync_state, manifest_json",
    "topic_messages": "topic_id, partition_id, offset, key, payload, timestamp_ms, user_id, op",
    "live": "live_id, connection_id, subscription_id, namespace_id, table_name, user_id, query, options, status, "
    "created_at, last_update, changes, node_id, last_ping_at",
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
}
MORE = {
    "jobs": ["progress", "actor"],
    "server_logs": ["request_id"],
    "sessions": ["user_id"],
    "transactions": ["user_id"],
}
"""What docs/catalogue.md puts behind the columns of the reference."""
WRITTEN = ("users", "namespaces", "schemas", "tables", "columns", "settings", "stats", "topics", "datatypes", *COLUMNS)


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql(
        "CREATE NAMESPACE app; CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT NOT NULL, p DECIMAL(8,2))"
        " WITH (ACCESS_LEVEL = 'public'); INSERT INTO app.t VALUES (1, 'a', 1);"
        "CREATE TABLE app.hid (id INT PRIMARY KEY);"
        "CREATE VIEW app.seen AS SELECT id FROM app.t; CREATE TOPIC app.feed; PUBLISH TO app.feed PAYLOAD 'x'"
    )
    done(server, server.post("STORAGE FLUSH TABLE app.t"), "FL")
    with roles_of(server) as found:
        yield found


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_columns(roles: Roles, name: str) -> None:
    wanted = COLUMNS[name].split(", ")
    for role in ("dba", "system"):
        found = columns(one(roles.post(role, f"SELECT * FROM system.{name}")))
        assert found[: len(wanted)] == wanted
        assert found[len(wanted) :] == MORE.get(name, [])
        described = [row["column_name"] for row in records(roles.post(role, f"DESCRIBE TABLE System.{name}"))]
        assert described == found
    for role in ("user", "service"):
        refused(roles.post(role, f"SELECT * FROM system.{name}"), DENIED)


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"live", "transactions"}))
def test_rows(roles: Roles, name: str) -> None:
    assert one(roles.post("dba", f"SELECT * FROM system.{name} LIMIT 5"))["rows"]


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_types_of_times_and_counts(roles: Roles, name: str) -> None:
    for column, kind in shape(one(roles.post("dba", f"SELECT * FROM system.{name} LIMIT 0"))):
        if column in {"created_at", "updated_at", "started_at", "finished_at", "opened_at", "last_seen_at"}:
            assert kind == "Timestamp"
        if column.endswith("_id") and column not in {"node_id", "partition_id", "group_id", "leader_node_id"}:
            assert kind == "Text"
        if column.startswith("is_") or column == "in_memory":
            assert kind == "Boolean"


@pytest.mark.parametrize("name", WRITTEN)
def test_they_are_read_only(roles: Roles, name: str) -> None:
    column = (COLUMNS.get(name) or "x").split(", ")[0]
    before = roles.server.rows(f"SELECT count(*) >= 0 FROM system.{name}")
    for sql, words in (
        (f"INSERT INTO system.{name} ({column}) VALUES ('x')", "Cannot insert system table"),
        (f"UPDATE system.{name} SET {column} = 'x' WHERE true", "Cannot update system table"),
        (f"DELETE FROM system.{name} WHERE true", "Cannot delete system table"),
        (f"DROP TABLE system.{name}", ""),
        (f"ALTER TABLE system.{name} ADD COLUMN z INT", ""),
        (f"CREATE TABLE system.{name} (id INT PRIMARY KEY)", ""),
        (f"CREATE VIEW system.{name} AS SELECT 1 AS x", ""),
    ):
        for role in ("dba", "system"):
            found = error(roles.post(role, sql))
            assert found.status in {400, 403}, found
            assert found.code in {"PERMISSION_DENIED", "SQL_EXECUTION_ERROR", "INVALID_SQL"}
            assert not words or "system" in found.message.lower()
    assert roles.server.rows(f"SELECT count(*) >= 0 FROM system.{name}") == before


@pytest.mark.parametrize("name", ["nosuch", "pg_class", "user", "lives"])
def test_missing_ones(roles: Roles, name: str) -> None:
    refused(roles.post("dba", f"SELECT * FROM system.{name}"), NO_TABLE)
    assert error(roles.post("user", f"SELECT * FROM system.{name}")).status in {403, 404}


def test_queries_over_several(roles: Roles) -> None:
    sql = (
        "SELECT s.table_name, count(*) AS n FROM system.schemas s JOIN system.columns c ON c.table_name = s.table_name"
        " AND c.namespace_id = s.namespace_id WHERE s.namespace_id = 'app' AND s.is_latest AND s.table_type = 'shared'"
        " GROUP BY 1 ORDER BY 1"
    )
    assert roles.server.rows(sql) == [["hid", 1], ["t", 3]]
    assert roles.server.rows("SELECT upper(storage_id) FROM system.storages WHERE storage_type LIKE 'file%'") == [
        ["LOCAL"]
    ]


def test_who_did_what(roles: Roles) -> None:
    ok(roles.post("dba", "CREATE USER 'eva' WITH PASSWORD 'GoodPass99' ROLE user"))
    ok(roles.post("dba", "EXECUTE AS USER 'eva' (SELECT 1)"))
    error(roles.post("service", "EXECUTE AS USER 'admin' (SELECT 1)"))
    rows = records(roles.post("dba", "SELECT * FROM system.audit_log ORDER BY timestamp, audit_id"))
    told = {(row["actor_user_id"], row["action"]) for row in rows}
    assert ("admin", "EXECUTE_AS_USER") in told
    assert ("s1", "EXECUTE_AS_USER_DENIED") in told
    assert ("admin", "LOGIN") in told
    assert any(row["action"].startswith("CREATE") and "eva" in row["target"] for row in rows)
    assert {row["ip_address"] for row in rows} <= {"127.0.0.1", None}
    assert "GoodPass99" not in str(rows)


def test_dba_tables(roles: Roles) -> None:
    assert columns(one(roles.post("user", "SELECT * FROM dba.notifications"))) == [
        "id", "user_id", "title", "body", "is_read", "created_at", "updated_at",
    ]  # fmt: skip
    found = one(roles.post("dba", "SELECT * FROM dba.stats"))
    assert columns(found) == ["id", "node_id", "metric_name", "metric_value", "metric_unit", "sampled_at"]
    assert dict(shape(found))["metric_value"] == "Double"
    assert found["schema"][0]["flags"] == ["pk", "nn", "uq"]
    for role in ("user", "service"):
        assert error(roles.post(role, "SELECT * FROM dba.stats")).status in {403, 404}
    refused(roles.post("user", "INSERT INTO dba.notifications (id, user_id, title) VALUES ('x', 'u1', 't')"), DENIED)


def test_metrics_of_system_stats(roles: Roles) -> None:
    result = one(roles.post("dba", "SELECT * FROM system.stats"))
    assert shape(result) == [("metric_name", "Text"), ("metric_value", "Text")]
    names = {row[0] for row in result["rows"]}
    assert {
        "server_uptime_seconds", "cpu_logical_cores", "cpu_physical_cores", "total_users", "total_namespaces",
        "total_tables", "total_jobs", "total_storages", "total_live_queries", "jobs_running", "jobs_queued",
        "jobs_failed", "active_connections", "active_connections_peak", "active_subscriptions", "node_id",
        "server_version", "server_build_date",
    } <= names  # fmt: skip
    assert len(names) == len(result["rows"])


INFORMATION: dict[str, list[list[object]]] = {
    "table_name, table_type FROM information_schema.tables WHERE table_schema = 'app' ORDER BY 1": [
        ["hid", "BASE TABLE"], ["seen", "VIEW"], ["t", "BASE TABLE"],
    ],
    "column_name, is_nullable FROM information_schema.columns WHERE table_schema = 'app' AND table_name = 't' "
    "ORDER BY ordinal_position": [["id", "NO"], ["v", "NO"], ["p", "YES"]],
    "numeric_precision, numeric_scale FROM information_schema.columns WHERE column_name = 'p'": [[8, 2]],
    "schema_name FROM information_schema.schemata WHERE schema_name IN ('app', 'system', 'default') ORDER BY 1": [
        ["app"], ["default"], ["system"],
    ],
    "k.column_name FROM information_schema.table_constraints c JOIN information_schema.key_column_usage k "
    "ON k.constraint_name = c.constraint_name AND k.table_name = c.table_name WHERE c.table_schema = 'app' "
    "AND c.table_name = 't' AND c.constraint_type = 'PRIMARY KEY'": [["id"]],
    "table_name FROM information_schema.views WHERE table_schema = 'app'": [["seen"]],
}  # fmt: skip


@pytest.mark.parametrize("sql", INFORMATION)
def test_information_schema(roles: Roles, sql: str) -> None:
    assert roles.server.rows(f"SELECT {sql}") == INFORMATION[sql]
    assert "hid" not in str(one(roles.post("user", f"SELECT {sql}"))["rows"])


def test_information_schema_is_read_only(roles: Roles) -> None:
    for sql in ("DELETE FROM information_schema.tables WHERE true", "DROP TABLE information_schema.tables",
                "CREATE TABLE information_schema.x (id INT PRIMARY KEY)"):  # fmt: skip
        assert error(roles.post("system", sql))[:2] in {DENIED, EXECUTION}
