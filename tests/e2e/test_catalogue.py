"""The catalogue of a running server: who is connected, what it logged, what it weighs, and who may look."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, error, ok, roles_of
from tests.e2e.conftest import Serve
from tests.e2e.live_socket import connected, play, signed_in, sql
from tests.e2e.running import RunningServer

SETTINGS = {
    "HEADRACE_RETENTION_ENABLE_DBA_STATS": "true",
    "HEADRACE_RETENTION_DBA_STATS_INTERVAL_SECONDS": "1",
    "HEADRACE_AUTH_JWT_SECRET": "a-secret-of-the-tests-0123456789abcdef",
    "HEADRACE_LOGGING_MEMORY_LINES": "50",
    "HEADRACE_LOGGING_LEVEL": "debug",
}
ADMIN_ONLY = (
    "cluster", "cluster_groups", "columns", "datatypes", "live", "namespaces", "schemas", "server_logs", "sessions",
    "settings", "stats", "tables", "topic_messages", "topic_offsets", "topics", "transactions", "users",
)  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("catalogue") / "data", changes=SETTINGS)
    try:
        running.start().set_up().sql(
            "CREATE NAMESPACE app; CREATE TABLE app.news (id BIGINT PRIMARY KEY, body TEXT) "
            "WITH (ACCESS_LEVEL = 'PUBLIC'); CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY)"
        )
        yield running
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def roles(shown: RunningServer) -> Iterator[Roles]:
    with roles_of(shown) as found:
        yield found


@pytest.mark.parametrize("name", ADMIN_ONLY)
def test_system_tables_are_for_admins(roles: Roles, name: str) -> None:
    for role in ("user", "service"):
        assert error(roles.post(role, f"SELECT * FROM system.{name}"))[:2] == (403, "PERMISSION_DENIED")
    for role in ("dba", "system"):
        ok(roles.post(role, f"SELECT * FROM system.{name}"))


def test_cluster_statements(roles: Roles) -> None:
    for role, answer in (("user", (403, "PERMISSION_DENIED")), ("dba", (503, "CLUSTER_UNAVAILABLE"))):
        assert error(roles.post(role, "CLUSTER REBALANCE"))[:2] == answer


def test_secrets_are_masked(roles: Roles) -> None:
    for statement in ("SELECT * FROM system.settings", "SHOW SETTINGS"):
        (result,) = ok(roles.post("dba", statement))
        values = {row[0]: row[1] for row in result["rows"]}
        assert (values["auth.jwt_secret"], values["auth.root_password"]) == ("***", "")
        assert values["logging.memory_lines"] == "50"
        assert SETTINGS["HEADRACE_AUTH_JWT_SECRET"] not in json.dumps(result)
    (users,) = ok(roles.post("dba", "SELECT DISTINCT password_hash FROM system.users"))
    assert users["rows"] == [["***"]]


def test_the_request_that_asks_is_a_session(shown: RunningServer) -> None:
    columns = "session_id, state, transport, client_addr, last_method, user_id, transaction_id"
    answer = shown.post(f"SELECT {columns} FROM system.sessions WHERE transport = 'http'")
    row = answer.json()["results"][0]["rows"][0]
    assert row == [
        answer.headers["x-request-id"], "active", "http", "127.0.0.1", "POST /v1/api/sql", shown.user, None,
    ]  # fmt: skip


def test_a_transaction_belongs_to_its_session(shown: RunningServer) -> None:
    answer = shown.post(
        "BEGIN; INSERT INTO app.news VALUES (900, 'x'); "
        "SELECT s.session_id, s.transaction_state, s.transaction_has_writes, t.write_count FROM system.sessions s "
        "JOIN system.transactions t ON t.owner_id = s.session_id AND t.transaction_id = s.transaction_id; ROLLBACK"
    )
    request = answer.headers["x-request-id"]
    assert answer.json()["results"][2]["rows"] == [[request, "open_write", True, 1]]
    assert shown.rows("SELECT * FROM system.transactions") == []


def test_websockets_and_event_streams_are_sessions(shown: RunningServer) -> None:
    rows = "SELECT session_id, state, transport, user_id, last_method FROM system.sessions WHERE transport <> 'http'"

    async def scene() -> None:
        assert await sql(shown, rows) == []
        async with connected(shown), signed_in(shown) as socket:
            await socket.subscribe("SELECT id FROM app.news", "first")
            await socket.settled()
            found = sorted((row[1:] for row in await sql(shown, rows)), key=str)
            ws = ["websocket", "GET /v1/ws"]
            assert found == [["authenticating", ws[0], None, ws[1]], ["idle", ws[0], shown.user, ws[1]]]
            joined = await sql(
                shown, "SELECT l.subscription_id, s.user_id FROM system.live l JOIN system.sessions s "
                "ON s.session_id = l.connection_id AND s.opened_at <= s.last_seen_at"
            )  # fmt: skip
            assert joined == [["first", shown.user]]
            stats = await sql(shown, "SHOW STATS FOR TABLE app.news")
            assert stats[0][5] == 1
            counts = dict(await sql(shown, "SELECT * FROM system.stats WHERE metric_name LIKE '%sessions%'"))
            assert counts["websocket_sessions"] == "2"
        while await sql(shown, rows):  # until the server has seen both go
            continue

    play(scene)

    def follow() -> None:
        with shown.client_of(shown.token) as client, client.stream(
            "GET", "/v1/api/live", params={"sql": "SELECT id FROM app.news"}
        ) as answer:  # fmt: skip
            lines = answer.iter_lines()
            next(lines)
            streams.extend(shown.rows(rows))
            arrived.set()

    streams: list[list[object]] = []
    arrived = threading.Event()
    thread = threading.Thread(target=follow)
    thread.start()
    assert arrived.wait(20)
    thread.join()
    assert [row[1:] for row in streams] == [["idle", "event_stream", shown.user, "GET /v1/api/live"]]


def test_the_log_can_be_read(shown: RunningServer) -> None:
    failed = shown.post("SELECT 'a secret text' FROM app.missing")
    request = failed.headers["x-request-id"]
    lines = shown.rows(
        "SELECT level, target, message, request_id FROM system.server_logs WHERE request_id = $1", [request]
    )
    assert [line[:2] for line in lines] == [["info", "headrace.request"]]
    assert "404" in lines[0][2]
    everything = shown.rows("SELECT timestamp, message FROM system.server_logs")
    assert len(everything) <= 50
    assert [row[0] for row in everything] == sorted((row[0] for row in everything), reverse=True)
    text = json.dumps(everything)
    for secret in ("a secret text", shown.password, shown.token, SETTINGS["HEADRACE_AUTH_JWT_SECRET"]):
        assert secret not in text


def test_figures_are_those_of_the_process(shown: RunningServer) -> None:
    figures = dict(shown.rows("SELECT * FROM system.stats"))
    assert abs(int(figures["memory_usage_mb"]) - shown.memory_mb()) < 30
    assert figures["total_tables"] == str(len(shown.rows("SELECT * FROM system.tables")))
    assert figures["total_users"] == str(len(shown.rows("SELECT * FROM system.users")))
    (node,) = shown.rows("SELECT api_addr, is_leader, last_applied_log, uptime_seconds FROM system.cluster")
    assert f"http://{node[0]}" == shown.url
    health = shown.client.get("/v1/api/cluster/health").json()
    assert (health["is_cluster_mode"], health["nodes"][0]["is_leader"]) == (False, True)
    assert health["nodes"][0]["api_addr"] == node[0]
    shown.sql("CREATE USER 'counted' WITH PASSWORD 'Counted123!' ROLE user")
    assert dict(shown.rows("SELECT * FROM system.stats"))["total_users"] == str(int(figures["total_users"]) + 1)


def test_samples_are_written_again_and_again(shown: RunningServer) -> None:
    """A live query waits for them: `dba.stats` is a table like others."""

    async def scene() -> None:
        async with signed_in(shown) as socket:
            await socket.subscribe("SELECT id FROM dba.stats WHERE metric_name = 'memory_usage_mb'")
            ids: set[str] = set()
            while len(ids) < 2:
                message = await socket.take()
                if message["type"] == "change":
                    ids |= {row["id"] for row in message["rows"]}

    play(scene)
    (row,) = shown.rows("SELECT id, node_id, metric_unit FROM dba.stats WHERE metric_name = 'memory_usage_mb' LIMIT 1")
    assert row[0].endswith(":1:memory_usage_mb")
    assert row[1:] == [1, "megabytes"]
    columns = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'dba' AND table_name = $1"
    assert [row[0] for row in shown.rows(columns, ["stats"])] == [
        "id", "node_id", "metric_name", "metric_value", "metric_unit", "sampled_at",
    ]  # fmt: skip
    assert [row[0] for row in shown.rows(columns, ["notifications"])] == [
        "id", "user_id", "title", "body", "is_read", "created_at", "updated_at",
    ]  # fmt: skip


def test_who_may_read_dba(roles: Roles) -> None:
    for role in ("user", "service"):
        assert error(roles.post(role, "SELECT * FROM dba.stats"))[:2] == (403, "PERMISSION_DENIED")
        ok(roles.post(role, "SELECT * FROM dba.notifications"))
    ok(roles.post("dba", "SELECT count(*) FROM dba.stats"))


def test_without_samples_nothing_is_written(serve: Serve) -> None:
    running = serve(HEADRACE_RETENTION_ENABLE_DBA_STATS="false", HEADRACE_LOGGING_MEMORY_LINES="0")
    running.set_up()
    commits = "SELECT metric_value FROM system.stats WHERE metric_name = 'storage_commits'"
    before = running.rows(commits)
    time.sleep(1.5)  # longer than until the first sample: what is to be shown is that nothing happens
    assert running.rows(commits) == before
    assert running.rows("SELECT count(*) FROM dba.stats") == [[0]]
    assert running.rows("SELECT * FROM system.server_logs") == []
