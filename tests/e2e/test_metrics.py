"""`GET /metrics` of a running server: every counter is there and counts."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from server.routes.metrics import COUNTERS
from tests.e2e.running import RunningServer


def samples(server: RunningServer) -> dict[str, float]:
    answer = server.client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_counters_count(server: RunningServer) -> None:
    before = samples(server)
    assert {f"headrace_{name}_total" for name in COUNTERS} <= set(before)
    assert server.sql("CREATE NAMESPACE metrics")
    assert samples(server)["headrace_storage_commits_total"] > before["headrace_storage_commits_total"]
