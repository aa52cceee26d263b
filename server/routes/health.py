"""`/health`, `/v1/api/healthcheck` and `/v1/api/cluster/health`: for this machine only, without signing in."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server.exchange import exchange_of
from server.process_figures import MIB, hostname, memory_bytes
from server.state import AppState
from server.version import build_date, version
from server.wire import ClusterHealth, ClusterNode, Health, HealthDenied

_CLUSTER_DENIED = "Access denied. Cluster health is localhost-only."


class HealthRoutes:
    """The handlers, over one state."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        """Return the three routes."""
        return [
            Route("/health", self.health),
            Route("/v1/api/healthcheck", self.health),
            Route("/v1/api/cluster/health", self.cluster),
        ]

    async def health(self, request: Request) -> Response:
        """Tell that the server answers."""
        if not exchange_of(request.scope).loopback:
            return _json(HealthDenied(), 403)
        return _json(Health(version=version(), build_date=build_date()))

    async def cluster(self, request: Request) -> Response:
        """Tell the state of the only node there is."""
        if not exchange_of(request.scope).loopback:
            return PlainTextResponse(_CLUSTER_DENIED, 403)
        process = self._state.process
        host, port = request.scope["server"] or ("localhost", 0)
        node = ClusterNode(
            node_id=1,
            role="leader",
            status="healthy",
            api_addr=f"{host}:{port}",
            is_self=True,
            is_leader=True,
            hostname=hostname(),
            memory_usage_mb=memory_bytes() // MIB,
            cpu_usage_percent=process.cpu_percent(),
            uptime_seconds=process.uptime_seconds,
            uptime_human=process.uptime_human,
        )
        body = ClusterHealth(
            status="healthy",
            version=version(),
            build_date=build_date(),
            last_applied=self._state.engine.last_seq,
            nodes=[node],
        )
        return _json(body)


def _json(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
