"""`GET /metrics`: the numeric figures of `system.stats` and of the process, in Prometheus' text format.

From this machine without signing in, from elsewhere with a bearer token of role dba or system. prometheus_client writes
the format; it also asks the system about the process (memory, processor time, open files).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.errors import AuthError
from server.exchange import exchange_of
from server.state import Authenticator

Figures = Callable[[], Mapping[str, str | float]]
Lags = Callable[[], Sequence[tuple[str, str, int]]]
"""Topic, consumer group, and the messages that it has not acknowledged; a bounded number of them."""

COUNTERS = frozenset((
    "live_deliveries",
    "live_deltas",
    "live_ended_slow",
    "live_refusals",
    "live_replays",
    "storage_commits",
    "storage_committed_works",
    "storage_evicted_rows",
    "storage_expired_snapshots",
    "storage_failed_works",
    "storage_merges",
    "storage_reopened",
))  # fmt: skip
"""Figures that only grow while the server runs; all others go up and down."""


class FigureCollector(Collector):
    """Turns figures into metrics named `headrace_<figure>`; counters end in `_total`, texts are left out."""

    def __init__(self, figures: Figures, lags: Lags = tuple) -> None:
        self._figures = figures
        self._lags = lags

    def collect(self) -> Iterator[Metric]:
        """Yield one metric for each numeric figure."""
        for name, figure in self._figures().items():
            try:
                value = float(figure)
            except ValueError:
                continue
            family = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
            yield family(f"headrace_{name}", f"{name} of system.stats", value=value)
        lags = GaugeMetricFamily(
            "headrace_topic_group_lag",
            "Messages of a topic that are there and that the consumer group has not acknowledged",
            labels=("topic", "group"),
        )
        for topic, group, lag in self._lags():
            lags.add_metric((topic, group), lag)
        yield lags


class MetricsRoute:
    """The handler, over the figures of one server. `figures` may block; `lags` is asked after it."""

    def __init__(self, figures: Figures, authenticator: Authenticator, lags: Lags = tuple) -> None:
        self._authenticator = authenticator
        self._registry = CollectorRegistry()
        self._registry.register(FigureCollector(figures, lags))
        ProcessCollector(registry=self._registry)

    def route(self) -> Route:
        """Return the route."""
        return Route("/metrics", self.metrics)

    async def metrics(self, request: Request) -> Response:
        """Answer all metrics; raises AuthError for a caller from afar without the right."""
        exchange = exchange_of(request.scope)
        if not exchange.loopback:
            identity = self._authenticator.authenticate(exchange.headers.get(b"authorization"), exchange)
            if not identity.role.is_admin:
                raise AuthError(403, "PERMISSION_DENIED", "Metrics need the role dba or system")
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await asyncio.get_running_loop().run_in_executor(None, encode, self._registry)
        return Response(text, media_type=None, headers={"content-type": content_type})
