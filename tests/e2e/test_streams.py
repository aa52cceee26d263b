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
