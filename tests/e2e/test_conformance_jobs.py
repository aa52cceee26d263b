"""Jobs as clients see them: system.jobs and its rows, KILL JOB, prefixes, what each statement starts, who may."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, columns, error, message, ok, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import DENIED, INVALID, UNSUPPORTED, done, ended, one, prefixed, records, shape

JOBS = ["job_id", "job_type", "status", "leader_status", "parameters", "message", "exception_trace",
        "idempotency_key", "queue", "priority", "retry_count", "max_retries", "memory_used", "cpu_used", "created_at",
        "updated_at", "started_at", "finished_at", "node_id", "leader_node_id"]  # fmt: skip
JOB_NODES = ["job_id", "node_id", "status", "error_message", "created_at", "started_at", "finished_at", "updated_at"]


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)")
    with roles_of(server) as found:
        yield found


def count(server: RunningServer) -> object:
    return server.rows("SELECT count(*) FROM system.jobs")


def test_columns_and_their_types(roles: Roles) -> None:
    result = one(roles.post("dba", "SELECT * FROM system.jobs"))
    names = columns(result)
    assert names[: len(JOBS)] == JOBS  # progress may follow: the reference has no such column
    kinds = dict(shape(result))
    for name in ("created_at", "updated_at", "started_at", "finished_at"):
        assert kinds[name] == "Timestamp"
    for name in ("job_id", "job_type", "status", "message", "exception_trace", "idempotency_key", "queue"):
        assert kinds[name] == "Text"
    assert kinds["parameters"] == "Json"
    assert kinds["retry_count"] in {"Int", "SmallInt", "BigInt"}
    assert columns(one(roles.post("dba", "SELECT * FROM system.job_nodes"))) == JOB_NODES


def test_a_flush_is_told_of(roles: Roles) -> None:
    server = roles.server
    server.sql("DELETE FROM app.t WHERE id = 7; INSERT INTO app.t VALUES (7)")
    answer = roles.post("service", "STORAGE FLUSH TABLE app.t")
    row = ended(server, prefixed(answer, "FL"))
    assert (row["job_type"], row["status"], row["retry_count"], row["exception_trace"]) == (
        "flush",
        "completed",
        0,
        None,
    )
    assert row["created_at"] <= row["started_at"] <= row["finished_at"]
    assert row["updated_at"] >= row["created_at"]
    assert "t" in json.dumps(json.loads(row["parameters"]))
    assert row["max_retries"] == 3
    assert row["message"]
    (node,) = records(server.post("SELECT * FROM system.job_nodes WHERE job_id = $1", [row["job_id"]]))
    assert (node["status"], node["error_message"], node["node_id"]) == ("completed", None, row["node_id"])


@pytest.mark.parametrize(
    ("make", "sql", "prefix", "kind"),
    [
        ("CREATE TABLE app.d (id INT PRIMARY KEY)", "DROP TABLE app.d", "CL", "cleanup"),
        ("CREATE USER TABLE app.d (id INT PRIMARY KEY)", "DROP USER TABLE IF EXISTS app.d", "CL", "cleanup"),
        ("CREATE STREAM TABLE app.d (id INT) WITH (TTL_SECONDS = 9)", "drop stream table APP.D", "CL", "cleanup"),
        ("CREATE TOPIC app.d", "DROP TOPIC app.d", "TC", "topic_cleanup"),
        ("CREATE TOPIC IF NOT EXISTS app.c", "CLEAR TOPIC app.c", "TC", "topic_cleanup"),
        ("", "STORAGE COMPACT TABLE app.t", "CO", "compact"),
    ],
)
def test_what_statements_start(roles: Roles, make: str, sql: str, prefix: str, kind: str) -> None:
    if make:
        roles.server.sql(make)
    answer = roles.post("dba", sql)
    row = ended(roles.server, prefixed(answer, prefix))
    assert row["job_type"] == kind
    assert row["status"] in {"completed", "skipped"}, row
    expected = {
        "CL": "Table app.d dropped successfully. Cleanup job: {}",
        "CO": "Storage compaction started for table 'app.t'. Job ID: {}",
        "TC": "Scheduled cleanup job [{}] for topic 'app.c'" if "CLEAR" in sql
              else "Dropped topic 'app.d' and scheduled cleanup job [{}]",
    }[prefix]  # fmt: skip
    assert message(answer) == expected.format(row["job_id"])


def test_conditions_on_system_jobs(roles: Roles) -> None:
    server = roles.server
    server.sql("CREATE TABLE app.x (id INT PRIMARY KEY)")
    done(server, server.post("DROP TABLE app.x"), "CL")
    (by_type,) = server.rows("SELECT count(*) FROM system.jobs WHERE job_type = 'cleanup' AND status = 'completed'")[0]
    assert int(by_type) >= 1
    statuses = {row[0] for row in server.rows("SELECT DISTINCT status FROM system.jobs")}
    assert statuses <= {"new", "queued", "running", "retrying", "completed", "failed", "cancelled", "skipped"}
    newest = server.rows("SELECT created_at FROM system.jobs ORDER BY created_at DESC LIMIT 3")
    assert newest == sorted(newest, reverse=True)


# --- KILL JOB ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["KILL JOB '{}'", "kill job '{}';", "KILL JOB\n'{}' -- now"])
def test_a_job_that_has_ended_is_not_killed(roles: Roles, form: str) -> None:
    server = roles.server
    server.sql("DELETE FROM app.t WHERE id = 9; INSERT INTO app.t VALUES (9)")
    before = done(server, server.post("STORAGE FLUSH TABLE app.t"), "FL")
    found = error(server.post(form.format(before["job_id"])))
    assert 400 <= found.status < 500
    assert before["job_id"] in found.message
    assert ended(server, before["job_id"]) == before


@pytest.mark.parametrize("name", ["none", "FL-0", "FL-' OR 'x'='x", "é", "x" * 3000, "nul\x00byte", "%", ""])
def test_unknown_jobs(roles: Roles, name: str) -> None:
    before = count(roles.server)
    found = error(roles.post("dba", "KILL JOB '{}'".format(name.replace("'", "''"))))
    assert found[:2] in {(404, "JOB_NOT_FOUND"), (400, "SQL_EXECUTION_ERROR"), (400, "INVALID_SQL")}
    assert count(roles.server) == before


@pytest.mark.parametrize("sql", ["KILL JOB", "KILL JOB NULL", "KILL JOB 'a' 'b'", "KILL JOB 'a', 'b'", "KILL JOBS 'a'",
                                 "KILL", "KILL JOB ('a')", "KILL JOB 5.5.5"])  # fmt: skip
def test_malformed_kills(roles: Roles, sql: str) -> None:
    assert error(roles.post("dba", sql))[:2] in {INVALID, UNSUPPORTED}


def test_who_may(roles: Roles) -> None:
    for role in ("user", "service"):
        for sql in ("KILL JOB 'none'", "SELECT * FROM system.jobs", "SELECT * FROM system.job_nodes"):
            assert error(roles.post(role, sql))[:2] == DENIED
    for role in ("dba", "system"):
        ok(roles.post(role, "SELECT * FROM system.jobs"))
        assert error(roles.post(role, "KILL JOB 'none'")).status in {400, 404}


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO system.jobs (job_id) VALUES ('x')",
        "UPDATE system.jobs SET status = 'completed' WHERE true",
        "DELETE FROM system.jobs WHERE true",
        "DROP TABLE system.jobs",
        "ALTER TABLE system.jobs ADD COLUMN x INT",
    ],
)
def test_jobs_are_written_by_the_server_only(roles: Roles, sql: str) -> None:
    before = count(roles.server)
    for role in ("dba", "system"):
        found = error(roles.post(role, sql))
        assert found[:2] == DENIED or "system" in found.message
    assert count(roles.server) == before


def test_jobs_are_there_after_a_restart(fresh_server: RunningServer) -> None:
    fresh_server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)")
    before = done(fresh_server, fresh_server.post("STORAGE FLUSH TABLE app.t"), "FL")
    fresh_server.restart()
    fresh_server.client.headers["Authorization"] = f"Bearer {fresh_server.token}"
    assert ended(fresh_server, before["job_id"]) == before
    assert fresh_server.rows("SELECT * FROM app.t") == [[1]]
