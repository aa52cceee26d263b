"""Puts the application together: the gate around the hot endpoints and Starlette's router.

The router raises what it does not handle; the gate turns it into an answer (`server/middleware/errors.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from server.active import ActiveRequests
from server.errors import HttpError
from server.middleware.gate import Gate
from server.routes import openapi
from server.routes.exports import ExportsRoute
from server.routes.files import FilesRoute
from server.routes.health import HealthRoutes
from server.routes.ingest import IngestRoute
from server.routes.sql import SqlEndpoint
from server.routes.topics import TopicRoutes
from server.state import AppState

SQL_PATH = "/v1/api/sql"
INGEST_PATH = "/v1/api/ingest/{namespace}/{table}"


def create_app(
    state: AppState,
    more_routes: Sequence[BaseRoute] = (),
    *,
    active: ActiveRequests | None = None,
    websocket_routes: Mapping[str, ASGIApp] = MappingProxyType({}),
) -> ASGIApp:
    """Make the ASGI application.

    `more_routes` are those of other areas, such as `server.auth.routes.routes`. `websocket_routes` maps paths to the
    applications of the WebSockets there; a request to such a path that does not upgrade is answered with 426.
    """
    active = ActiveRequests() if active is None else active
    sql = SqlEndpoint(state, active)
    routes = [*own_routes(state, active), *more_routes]
    router = Router(routes, redirect_slashes=False, default=_not_found, lifespan=_lifespan(active))
    hot = dict.fromkeys(websocket_routes, _upgrade_required) | {SQL_PATH: sql} | TopicRoutes(state, active).endpoints()
    return Gate(_mark(router), hot, state.config, state.limits, websocket_routes)


def own_routes(state: AppState, active: ActiveRequests) -> list[Route]:
    """Return the routes of this room but the hot ones, which the gate knows."""
    return [
        Route(INGEST_PATH, IngestRoute(state, active).ingest, methods=["POST"]),
        *FilesRoute(state).routes(),
        *ExportsRoute(state).routes(),
        *HealthRoutes(state).routes(),
        *openapi.routes(),
    ]


def _lifespan(active: ActiveRequests) -> Any:
    """Return what runs while the server does. Storage outlives it: `server/serve.py` opens and closes that."""

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        active.start()
        yield
        await active.stop()

    manager: AbstractAsyncContextManager[None] = lifespan  # type: ignore[assignment]
    return manager


def _mark(router: Router) -> ASGIApp:
    """Make the router raise 405 in place of answering it: it does so inside an application only."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = router
        await router(scope, receive, send)

    return app


async def _upgrade_required(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell that there is a WebSocket only."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    raise HttpError(426, "UPGRADE_REQUIRED", f"{scope['path']} is a WebSocket; upgrade to it.", headers=headers)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell that nothing is there."""
    raise HTTPException(404)
