"""STREAM tables of a real server: rows go when their time is over, across a kill too."""

from __future__ import annotations

import time
from collections.abc import Callable

from storage.check import check
from storage.engine import StorageEngine
from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

CREATE = "CREATE NAMESPACE app; CREATE STREAM TABLE app.short (id INT, v TEXT) WITH (TTL_SECONDS = 1)"


def eventually(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def figure(server: RunningServer, name: str) -> int:
    return int(server.rows(f"SELECT metric_value FROM system.stats WHERE metric_name = '{name}'")[0][0])


def test_rows_expire_and_are_evicted(serve: Serve) -> None:
    server = serve(HEADRACE_STREAM_EVICTION_INTERVAL_SECONDS="0.1").set_up()
    server.sql(CREATE)
    server.sql("INSERT INTO app.short VALUES (1, 'a'), (1, 'b')")
    assert server.rows("SELECT COUNT(*) FROM app.short") in ([[2]], [[0]])  # a slow machine may take the second
    eventually(lambda: server.rows("SELECT COUNT(*) FROM app.short") == [[0]])
    assert server.rows("SELECT * FROM app.short WHERE id = 1") == []
    eventually(lambda: figure(server, "storage_evicted_rows") == 2)
    commits = figure(server, "storage_commits")
    server.sql("INSERT INTO app.short VALUES (2, 'c')")
    eventually(lambda: figure(server, "storage_evicted_rows") == 3)
    assert figure(server, "storage_commits") == commits + 2, "an idle server writes nothing"
    assert server.stop() == 0
    assert check(server.data) == []


def test_rows_of_a_killed_server_expire(serve: Serve) -> None:
    """Killed before and after their time is over: the rows are gone at once, and end once in the log."""
    server = serve(HEADRACE_STREAM_EVICTION_INTERVAL_SECONDS="3600").set_up()
    server.sql(CREATE)
    server.sql("CREATE STREAM TABLE app.long (id INT) WITH (TTL_SECONDS = 3600); INSERT INTO app.long VALUES (1), (2)")
    server.sql("INSERT INTO app.short VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    server.restart()
    eventually(lambda: server.rows("SELECT COUNT(*) FROM app.short") == [[0]])
    assert server.rows("SELECT id FROM app.long") == [[1], [2]]
    server.sql("INSERT INTO app.short VALUES (4, 'd')")
    server.kill()
    assert check(server.data) == []
    server.restart(HEADRACE_STREAM_EVICTION_INTERVAL_SECONDS="0.05")
    eventually(lambda: server.rows("SELECT COUNT(*) FROM app.short") == [[0]])
    eventually(lambda: figure(server, "storage_evicted_rows") > 0)
    assert server.stop() == 0
    assert check(server.data) == []
    with StorageEngine.open(server.data) as engine:
        engine.evict()
        ended = [
            seq
            for change in engine.feed.subscribe(0).poll(10_000)
            for table in change.tables
            if table.table.name == "short"
            for seq in table.removed().column(0).to_pylist()
        ]
        assert len(ended) == len(set(ended)) == 4
        long = engine.catalog.table("app", "long")
        assert long is not None
        with engine.snapshot() as snapshot:
            assert snapshot.count(long, server.user) == 2


def test_what_a_client_gets(server: RunningServer) -> None:
    """Messages, codes and definitions over HTTP."""
    server.sql("CREATE NAMESPACE app")
    (created,) = server.sql("CREATE STREAM TABLE app.typing (id INT PRIMARY KEY, who TEXT) WITH (TTL_SECONDS = 600)")
    assert created["message"].endswith("stream table app.typing created successfully")
    server.sql("INSERT INTO app.typing VALUES (1, 'a'), (1, 'b')")
    assert server.rows("SELECT id, who FROM app.typing") == [[1, "a"], [1, "b"]]
    assert server.rows("SELECT id, who FROM app.typing", namespace_id="app") == [[1, "a"], [1, "b"]]
    for sql in (
        "UPDATE app.typing SET who = 'c' WHERE id = 1",
        "INSERT INTO app.typing VALUES (1, 'c') ON CONFLICT DO NOTHING",
        "BEGIN; INSERT INTO app.typing VALUES (1, 'c'); COMMIT",
    ):
        answer = server.post(sql)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UNSUPPORTED")
        assert "STREAM tables" in answer.json()["error"]["message"]
    (altered,) = server.sql("ALTER TABLE app.typing SET TBLPROPERTIES (TTL_SECONDS = 60)")
    assert altered["message"] == "Table app.typing altered successfully: SET TTL_SECONDS 60 (version 2)"
    query = "SELECT table_type, options FROM system.schemas WHERE table_name = 'typing' AND is_latest"
    assert server.rows(query) == [["stream", '{"TABLE_TYPE":"stream","TTL_SECONDS":60}']]
    (deleted,) = server.sql("DELETE FROM app.typing WHERE who = 'a'")
    assert deleted["message"] == "Deleted 1 row(s)"
    assert server.rows("SELECT who FROM app.typing") == [["b"]]
