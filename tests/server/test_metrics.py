"""`GET /metrics`: which figures it shows, as what, and to whom."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from server.app import create_app
from server.exchange import Exchange
from server.routes.metrics import MetricsRoute
from sql.identity import Identity, Role
from tests.server.fakes import REMOTE, FakeAuthenticator, Setting, make

FIGURES = {"server_version": "0.1.0", "live_deltas": "12", "storage_used_bytes": "4096", "uptime": "0.5"}


class Authenticator(FakeAuthenticator):
    """The token is the user's role."""

    def authenticate(self, authorization: bytes | None, exchange: Exchange) -> Identity:
        return Identity("ann", Role(super().authenticate(authorization, exchange).user))


def setting(folder: Path) -> Setting:
    made = make(folder)
    route = MetricsRoute(lambda: FIGURES, Authenticator()).route()
    made.app = create_app(made.state, [route], active=made.active)
    return made


def test_figures_are_metrics_and_texts_are_none(tmp_path: Path) -> None:
    answer = setting(tmp_path).request("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert families["headrace_live_deltas"].type == "counter"
    (sample,) = families["headrace_live_deltas"].samples
    assert (sample.name, sample.value) == ("headrace_live_deltas_total", 12)
    assert families["headrace_storage_used_bytes"].type == "gauge"
    assert families["headrace_storage_used_bytes"].samples[0].value == 4096
    assert families["process_resident_memory_bytes"].samples[0].value > 10_000_000
    assert not any("version" in name for name in families if name.startswith("headrace"))


def test_the_lag_of_groups_has_labels(tmp_path: Path) -> None:
    made = make(tmp_path)
    lags = [("app.t", "g", 3), ("app.t", 'a "quoted" \\ one', 0)]
    route = MetricsRoute(lambda: FIGURES, Authenticator(), lambda: lags).route()
    made.app = create_app(made.state, [route], active=made.active)
    answer = made.request("GET", "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    found = families["headrace_topic_group_lag"]
    assert found.type == "gauge"
    told = [(sample.labels["topic"], sample.labels["group"], sample.value) for sample in found.samples]
    assert told == lags


def test_from_afar_it_takes_an_administrator(tmp_path: Path) -> None:
    made = setting(tmp_path)
    assert made.request("GET", "/metrics", peer=REMOTE).status_code == 401
    user = {"Authorization": "Bearer user"}
    refused = made.request("GET", "/metrics", peer=REMOTE, headers=user)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "PERMISSION_DENIED")
    assert made.request("GET", "/metrics", peer=REMOTE, headers={"Authorization": "Bearer dba"}).status_code == 200
