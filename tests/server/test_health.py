"""The three health routes: bodies, and for this machine only."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from server.wire import ClusterHealth, Health
from tests.server.fakes import REMOTE, make


@pytest.mark.parametrize("path", ["/health", "/v1/api/healthcheck"])
def test_health(tmp_path: Path, path: str) -> None:
    setting = make(tmp_path)
    answer = setting.request("GET", path)
    assert answer.status_code == 200
    msgspec.json.decode(answer.content, type=Health)
    body = answer.json()
    assert list(body) == ["status", "version", "api_version", "build_date"]
    assert (body["status"], body["api_version"]) == ("healthy", "v1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["build_date"])
    denied = setting.request("GET", path, peer=REMOTE)
    assert denied.status_code == 403
    assert denied.json() == {"error": "Access denied. Health endpoint is localhost-only."}


def test_cluster_health_is_of_a_single_node(tmp_path: Path) -> None:
    setting = make(tmp_path)
    answer = setting.request("GET", "/v1/api/cluster/health")
    body = msgspec.json.decode(answer.content, type=ClusterHealth)
    assert (body.status, body.is_cluster_mode, body.is_leader, body.last_applied) == ("healthy", False, True, 7)
    (node,) = body.nodes
    assert (node.is_self, node.is_leader, node.status) == (True, True, "healthy")
    assert node.memory_usage_mb > 10
    denied = setting.request("GET", "/v1/api/cluster/health", peer=REMOTE)
    assert (denied.status_code, denied.text) == (403, "Access denied. Cluster health is localhost-only.")


def test_behind_a_proxy_it_is_not_local(tmp_path: Path) -> None:
    setting = make(tmp_path)
    for value in ("203.0.113.1", "127.0.0.1", "localhost"):
        assert setting.request("GET", "/health", headers={"X-Forwarded-For": value}).status_code == 403
        assert setting.request("GET", "/health", headers={"X-Real-IP": value}).status_code == 403
