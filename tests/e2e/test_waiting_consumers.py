"""A consumer whose account changes while it waits gets nothing that its account may not have any more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conformance import PASSWORD
from tests.e2e.running import RunningServer

WAITING = "SELECT metric_value FROM system.stats WHERE metric_name = 'topic_consumers_waiting'"


@pytest.mark.parametrize("change", ["DROP USER worker", "ALTER USER worker SET ROLE user"])
def test_a_consumer_that_waits_is_asked_again(server: RunningServer, change: str) -> None:
    server.sql("CREATE NAMESPACE IF NOT EXISTS app; CREATE TOPIC IF NOT EXISTS app.news")
    server.sql(f"CREATE USER IF NOT EXISTS 'worker' WITH PASSWORD '{PASSWORD}' ROLE service")
    group = change.split(maxsplit=1)[0].lower()
    body = {"topic_id": "app.news", "group_id": group, "start": "Latest", "timeout_seconds": 60}
    with server.client_of(server.login("worker", PASSWORD)) as worker, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(worker.post, "/v1/api/topics/consume", json=body)
        while server.rows(WAITING) != [["1"]]:
            assert not waiting.done()
        server.sql(change)
        server.sql("PUBLISH TO app.news PAYLOAD 'secret'")
        answer = waiting.result(90)
    assert answer.status_code == 401
    assert "INVALID_CREDENTIALS" in answer.text
    assert "payload" not in answer.text
    server.sql("DROP USER IF EXISTS worker")
