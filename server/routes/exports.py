"""`GET /v1/exports/{user_id}/{export_id}`: the ZIP file of an export, for its owner, dba and system.

Errors are `{"error": sentence, "code": code}`; those of the bearer rules are in the SQL shape.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from server.exchange import exchange_of
from server.state import AppState
from sql.errors import SqlError

EXPORTS_PATH = "/v1/exports/{user_id}/{export_id}"
_ANYTHING = "/v1/exports/{path:path}"


class ExportsRoute:
    """The endpoint, over the state."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        """Return its routes. A path with more or fewer parts is an invalid one, not an unknown one."""
        return [
            Route(EXPORTS_PATH, self.download, methods=["GET"], name="export"),
            Route(_ANYTHING, self.download, methods=["GET"], name="export-invalid", include_in_schema=False),
        ]

    async def download(self, request: Request) -> ASGIApp:
        """Answer one download."""
        from starlette.responses import FileResponse  # only where exports are used: an idle server is to be small

        exchange = exchange_of(request.scope)
        state = self._state
        identity = state.authenticator.authenticate(exchange.headers.get(b"authorization"), exchange)
        exchange.user = identity.user
        state.limits.check_query(identity.user)
        names = request.path_params
        try:
            path = await state.database.find_export(names.get("user_id", ""), names.get("export_id", ""), identity)
        except SqlError as error:
            from server.files.download import Refusal

            return Refusal(error)
        headers = {"cache-control": "private, no-store"}
        return FileResponse(path, media_type="application/zip", filename=path.name, headers=headers)
